// Signs in with the token. The page's own script sends it, because a form's own POST carries `Origin: null` under our
// referrer policy, and the service takes no request whose origin it cannot see.

const form = document.getElementById("login");
const token = document.getElementById("token");
const problem = document.getElementById("problem");

form.addEventListener("submit", async (submitted) => {
  submitted.preventDefault();
  problem.textContent = "";
  try {
    const response = await fetch("/login", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ token: token.value }),
    });
    if (response.ok) {
      location.replace("/");
      return;
    }
    const { error } = await response.json();
    problem.textContent = `${error.message}${error.hint ? `: ${error.hint}` : ""}.`;
  } catch {
    problem.textContent = "mailmill cannot be reached. Is `mailmill run` still running?";
  }
  token.select();
});

document.getElementById("enter").disabled = false; // before, the form would go off without this script

// A link that was followed from another site comes without the cookie (SameSite=Strict): whoever is signed in goes on.
const signedIn = await fetch("/v1/status").catch(() => null);
if (signedIn?.ok) location.replace("/");

// Builds elements. Law: what comes from outside becomes text, never markup; nothing in this page sets innerHTML.

/** An element: attributes by name, `on…` as listeners, `null`/`false` left out; strings among the children are text. */
export function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

export const byId = (id) => document.getElementById(id);

export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/**
 * Makes the children of `list` show `items`, in order. An element is kept, with its focus, as long as what it shows is
 * the same; `update` runs on every pass for what changes all the time. Returns the keys that are new.
 */
export function show(list, items, { key, signature = JSON.stringify, render, update = () => {} }) {
  const held = new Map([...list.children].map((child) => [child.dataset.key, child]));
  const fresh = [];
  let place = list.firstChild;
  for (const item of items) {
    const id = key(item);
    const shows = signature(item);
    let child = held.get(id);
    if (!child) fresh.push(id);
    if (!child || child.shows !== shows) {
      const made = render(item);
      made.dataset.key = id;
      made.shows = shows;
      if (child) {
        const focused = child.contains(document.activeElement);
        if (place === child) place = made;
        child.replaceWith(made);
        if (focused) made.querySelector("button, a")?.focus({ preventScroll: true });
      }
      child = made;
    }
    held.delete(id);
    if (child === place) place = place.nextSibling;
    else list.insertBefore(child, place);
    update(child, item);
  }
  for (const gone of held.values()) gone.remove();
  return fresh;
}

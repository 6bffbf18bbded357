// The nodes of a fleet: which live, and what each has. One process alone shows nothing here.

import { byId, h, setText, show } from "./dom.js";
import { plural, since, span } from "./words.js";

const STATES = {
  alive: ["good", "Alive"],
  stopping: ["warn", "Stopping"],
  silent: ["bad", "Silent"],
};

export function showNodes({ node: here, nodes = [] }) {
  const fleet = nodes.length > 1;
  byId("nodes-section").hidden = !fleet;
  const alive = nodes.filter(({ state }) => state === "alive").length;
  setText(byId("nodes-count"), fleet ? `${alive} of ${nodes.length} alive` : "");
  show(byId("nodes"), fleet ? nodes : [], {
    key: ({ id }) => id,
    signature: ({ heartbeatAgeSeconds, ...rest }) => JSON.stringify([rest, rest.id === here.id]),
    render: (node) => card(node, node.id === here.id),
    update: (element, { heartbeatAgeSeconds }) =>
      since(element.querySelector("[data-part=heard]"), Date.now() - heartbeatAgeSeconds * 1000),
  });
}

function card({ id, state, shards, accounts, roles, version, startedAt }, isHere) {
  const [tone, words] = STATES[state] ?? ["idle", state];
  const up = state === "silent" ? "" : ` · up ${span((Date.now() - Date.parse(startedAt)) / 1000)}`;
  return h(
    "li",
    { class: "card node-card", title: `Version ${version}${up}` },
    h("header", {}, h("h3", {}, id), h("span", { class: "pill", "data-tone": tone }, words)),
    h("p", { class: "small" }, `${plural(accounts, "account")} in ${plural(shards, "shard")}`),
    h(
      "p",
      { class: "muted small" },
      isHere ? "Answers here · " : "",
      "heard ",
      h("span", { "data-part": "heard" }),
    ),
    h("p", { class: "muted small" }, roles.length ? roles.join(", ") : "a command"),
  );
}

// The person's devices: when they were last seen, their names, and the way to take one out.

import { del, get, patch } from "../lib/api.js";
import { h, replace } from "../lib/dom.js";
import { ago, moment, size, t } from "../lib/i18n.js";
import { coalesced } from "../lib/live.js";
import { shown } from "../lib/names.js";
import { button, emptyState, failure, page } from "../ui/controls.js";
import { confirm, form, reveal } from "../ui/dialog.js";
import { icon } from "../ui/icons.js";
import { toast, toastError } from "../ui/toast.js";

/** A device that is there says so about twice a minute. */
const THERE_MS = 3 * 60_000;

const seenAt = ({ now, last_seen_at: login }) => (now?.announced_at > login ? now.announced_at : login);

const system = (now) => [now?.system, now?.version && `Ferry ${now.version}`].filter(Boolean).map(shown).join(" · ");

/** Whether others on its network reach it, and how what it received came. */
function traffic(now) {
  const isThere = now?.announced_at && Date.now() - Date.parse(now.announced_at) < THERE_MS;
  const way = isThere ? t("devices.lan", { address: shown(now.addresses[0]) }) : t("devices.relayOnly");
  const [lan, relay] = [now?.lan_received_bytes ?? 0, now?.relay_received_bytes ?? 0];
  const share = lan + relay > 0 && t("devices.share", { percent: Math.round((lan / (lan + relay)) * 100), lan: size(lan), relay: size(relay) });
  return [h("span", { class: "soft" }, way), share && h("span", { class: "soft" }, share)].filter(Boolean);
}

export function create(shell, life) {
  shell.title(t("nav.devices"));
  const content = h("div", { class: "cards" });

  async function load() {
    try {
      const { devices } = await get("/api/v1/devices");
      const linked = devices.filter((device) => !device.revoked_at).sort((a, b) => (a.last_seen_at < b.last_seen_at ? 1 : -1));
      replace(content, linked.length ? h("ul", { class: "rows" }, linked.map(row)) : emptyState("devices", t("devices.none"), t("devices.how")));
    } catch (error) {
      replace(content, failure(error, load));
    }
  }

  const row = (device) => h("li", null,
    icon("devices"),
    h("div", { class: "rows-main" }, h("strong", null, shown(device.name), device.current && h("span", { class: "tag" }, t("devices.this"))),
      h("span", { class: "soft", title: moment(seenAt(device)) }, [t("devices.seen", { ago: ago(seenAt(device)) }), system(device.now)].filter(Boolean).join(" · ")),
      ...traffic(device.now)),
    h("div", { class: "rows-actions" },
      button(t("action.rename"), () => rename(device), { kind: "quiet", "aria-label": t("devices.rename", { name: shown(device.name) }) }),
      button(t("action.revoke"), () => revoke(device), { kind: "quiet danger-text", "aria-label": t("devices.revoke", { name: shown(device.name) }) })));

  async function rename(device) {
    await form(t("devices.rename", { name: shown(device.name) }), { name: [t("field.name"), { value: device.name, maxlength: 64, autocomplete: "off" }] }, t("action.rename"),
      ({ name }) => patch(`/api/v1/devices/${device.device_id}`, { name }));
    await load();
  }

  async function revoke(device) {
    if (!(await confirm(t("devices.revoke", { name: shown(device.name) }), t("devices.revokeText"), t("action.revoke")))) return;
    try {
      await del(`/api/v1/devices/${device.device_id}`);
      toast(t("devices.revoked", { name: shown(device.name) }));
    } catch (error) {
      toastError(error);
    }
    await load();
  }

  // The command asks this relay, and the person says yes on the page that it names.
  const link = () => reveal(t("devices.link"), t("devices.linkText"), [`ferry login --relay ${location.origin}`]);

  life.add(shell.onChange(coalesced(load, 500)));
  load();
  return { element: page(t("nav.devices"), [button(t("devices.link"), link, { kind: "primary", icon: "add" })], content) };
}

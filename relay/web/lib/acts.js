// Acts in groups, as a person tells them: what one device did in one directory, in one go.

const APART_MS = 10 * 60_000;

const whose = (act) => `${act.by?.device_id ?? ""}|${act.space_id}|${act.directory ?? ""}|${act.acts.join()}`;

/** Groups of acts that follow each other; the acts come newest first, and so do the groups. */
export function grouped(acts) {
  const groups = [];
  for (const act of acts) {
    const at = Date.parse(act.at);
    const group = groups.at(-1);
    if (group && group.whose === whose(act) && group.from - at <= APART_MS) {
      group.acts.push(act);
      group.from = at;
    } else groups.push({ whose: whose(act), acts: [act], from: at, to: at });
  }
  return groups;
}

/** The day of a group, so that days have headings. */
export const dayOf = (group) => new Date(group.to).toDateString();

// Who may share what: asked by every list, so it is apart from the dialog, which is loaded when it is opened.

/** Whether this person can share it in any way: with people as its owner, by a link as whoever may change it. Without an entry it is the whole folder. */
export const canShare = ({ space, entry }) => Boolean(space) && space.role !== "viewer" && (!entry || (entry.kind !== "symlink" && !entry.version_id));

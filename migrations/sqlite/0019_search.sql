-- Names as they are searched: without case and accents. Beside each name, written with it; the index holds all that a search asks about, so that it is
-- read alone (docs/adr/0018-search.md).
ALTER TABLE files ADD COLUMN search_name TEXT NOT NULL DEFAULT '';

-- Up to which number of the feed the names are so; where it is not the head, because a release before this one wrote, the next search makes them anew.
ALTER TABLE namespaces ADD COLUMN folded_seq INTEGER NOT NULL DEFAULT 0;

CREATE INDEX files_search ON files (namespace_id, standing, file_type, search_name, updated_at, file_id, parent_id, file_size);

-- What a device says of itself: what it runs, and how much it received since its daemon started. What it received in earlier runs is added up here.
CREATE TABLE device_reports (
    device_id     BLOB PRIMARY KEY NOT NULL REFERENCES devices (device_id) ON DELETE CASCADE,
    system        TEXT NOT NULL,
    version       TEXT NOT NULL,
    -- When its daemon started, by its own clock: by that runs are told apart.
    run_at        INTEGER NOT NULL,
    lan_bytes     INTEGER NOT NULL,
    relay_bytes   INTEGER NOT NULL,
    earlier_lan   INTEGER NOT NULL,
    earlier_relay INTEGER NOT NULL,
    reported_at   INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Locks of WebDAV clients. One that has ended is as good as none and goes with the next that is made in its namespace.
CREATE TABLE dav_locks (
    namespace_id BLOB NOT NULL REFERENCES namespaces (namespace_id) ON DELETE CASCADE,
    token        BLOB NOT NULL,
    -- Names joined by slashes; empty for the namespace's root.
    path         BLOB NOT NULL,
    user_id      BLOB NOT NULL,
    -- What the client says of its user, as XML; NULL when it says nothing.
    owner_xml    TEXT,
    is_shared    INTEGER NOT NULL,
    -- Whether it holds for everything below, too.
    is_deep      INTEGER NOT NULL,
    timeout_s    INTEGER NOT NULL,
    expires_at   INTEGER NOT NULL,
    PRIMARY KEY (namespace_id, token)
) STRICT, WITHOUT ROWID;

-- Properties that WebDAV clients gave to files and directories; nobody else knows what they mean.
CREATE TABLE dav_props (
    namespace_id BLOB NOT NULL REFERENCES namespaces (namespace_id) ON DELETE CASCADE,
    file_id      BLOB NOT NULL,
    prop_space   TEXT NOT NULL,
    prop_name    TEXT NOT NULL,
    -- The whole element, as XML.
    value        BLOB NOT NULL,
    PRIMARY KEY (namespace_id, file_id, prop_space, prop_name)
) STRICT, WITHOUT ROWID;

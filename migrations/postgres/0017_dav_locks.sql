-- Locks of WebDAV clients. One that has ended is as good as none and goes with the next that is made in its namespace.
CREATE TABLE dav_locks (
    shard_key    SMALLINT NOT NULL,
    namespace_id BYTEA NOT NULL,
    token        BYTEA NOT NULL,
    -- Names joined by slashes; empty for the namespace's root.
    path         BYTEA NOT NULL,
    user_id      BYTEA NOT NULL,
    -- What the client says of its user, as XML; NULL when it says nothing.
    owner_xml    TEXT,
    is_shared    BOOLEAN NOT NULL,
    -- Whether it holds for everything below, too.
    is_deep      BOOLEAN NOT NULL,
    timeout_s    BIGINT NOT NULL,
    expires_at   BIGINT NOT NULL,
    PRIMARY KEY (shard_key, namespace_id, token),
    FOREIGN KEY (shard_key, namespace_id) REFERENCES namespaces (shard_key, namespace_id) ON DELETE CASCADE
);

-- Properties that WebDAV clients gave to files and directories; nobody else knows what they mean.
CREATE TABLE dav_props (
    shard_key    SMALLINT NOT NULL,
    namespace_id BYTEA NOT NULL,
    file_id      BYTEA NOT NULL,
    prop_space   TEXT NOT NULL,
    prop_name    TEXT NOT NULL,
    -- The whole element, as XML.
    value        BYTEA NOT NULL,
    PRIMARY KEY (shard_key, namespace_id, file_id, prop_space, prop_name),
    FOREIGN KEY (shard_key, namespace_id) REFERENCES namespaces (shard_key, namespace_id) ON DELETE CASCADE
);

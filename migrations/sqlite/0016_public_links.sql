-- Public links: an address that opens one file or folder to whoever knows it. The address is found by its hash; so that its maker can see it again it is
-- also kept encrypted under a key that is not in the database.
CREATE TABLE public_links (
    link_id        BLOB PRIMARY KEY NOT NULL CHECK (length(link_id) = 16),
    token_hash     BLOB NOT NULL UNIQUE CHECK (length(token_hash) = 32),
    token_sealed   BLOB NOT NULL,
    -- A link of a namespace or a node that is gone opens nothing, so there is no reference to watch over.
    namespace_id   BLOB NOT NULL,
    -- The file or directory, known by its node, so that it may be moved.
    node_id        BLOB NOT NULL,
    -- The link opens no more than this user may.
    maker_id       BLOB NOT NULL REFERENCES users (user_id) ON DELETE CASCADE,
    kind           TEXT NOT NULL CHECK (kind IN ('view', 'download', 'upload')),
    password_hash  TEXT,
    expires_at     INTEGER,
    max_downloads  INTEGER CHECK (max_downloads > 0),
    downloads      INTEGER NOT NULL DEFAULT 0,
    created_at     INTEGER NOT NULL,
    revoked_at     INTEGER
) STRICT, WITHOUT ROWID;
CREATE INDEX public_links_maker ON public_links (maker_id, created_at);
CREATE INDEX public_links_namespace ON public_links (namespace_id, created_at);

-- Who has fetched what through a link: the same visitor fetching the same file again, or the rest of it, is not counted again.
CREATE TABLE public_link_downloads (
    link_id      BLOB NOT NULL REFERENCES public_links (link_id) ON DELETE CASCADE,
    -- A hash: nobody can be told from it.
    visitor      BLOB NOT NULL CHECK (length(visitor) = 16),
    node_id      BLOB NOT NULL,
    counted_at   INTEGER NOT NULL,
    PRIMARY KEY (link_id, visitor, node_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX public_link_downloads_time ON public_link_downloads (counted_at);

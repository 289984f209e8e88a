-- What somebody calls a version. A version that has a label is kept.
ALTER TABLE file_versions ADD COLUMN label TEXT;

-- How long old versions and the trash of a folder are kept, as JSON; NULL: as its owner says. When that was last seen to, in milliseconds since 1970.
ALTER TABLE namespaces ADD COLUMN retention TEXT;
ALTER TABLE namespaces ADD COLUMN retained_at BIGINT NOT NULL DEFAULT 0;

-- The same for all folders of a user that say nothing themselves; NULL: for ever. In the directory.
ALTER TABLE users ADD COLUMN retention TEXT;

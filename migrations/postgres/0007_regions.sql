-- Several blob stores under names. A pack without a row here is in the store of the name 'default', where all packs were before there were regions.
CREATE TABLE pack_copies (
    shard_key SMALLINT NOT NULL,
    pack_id   BYTEA NOT NULL,
    region    TEXT NOT NULL,
    PRIMARY KEY (shard_key, pack_id, region),
    FOREIGN KEY (shard_key, pack_id) REFERENCES packs (shard_key, pack_id) ON DELETE CASCADE
);
CREATE INDEX pack_copies_region ON pack_copies (shard_key, region, pack_id);

-- Where a user's packs are written; NULL: where the relay's configuration says. In the directory.
ALTER TABLE users ADD COLUMN home_region TEXT;

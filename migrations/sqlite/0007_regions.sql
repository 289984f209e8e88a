-- Several blob stores under names. A pack without a row here is in the store of the name 'default', where all packs were before there were regions.
CREATE TABLE pack_copies (
    pack_id BLOB NOT NULL REFERENCES packs (pack_id) ON DELETE CASCADE,
    region  TEXT NOT NULL,
    PRIMARY KEY (pack_id, region)
) STRICT, WITHOUT ROWID;
CREATE INDEX pack_copies_region ON pack_copies (region, pack_id);

-- Where a user's packs are written; NULL: where the relay's configuration says.
ALTER TABLE users ADD COLUMN home_region TEXT;

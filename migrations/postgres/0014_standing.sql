-- Where each node stands in the tree that is shown, so that a page of a directory is read by itself. Derived from `state` like the columns before.
--
-- `parent_id` and `file_name` are the place that counts: in a cycle of concurrent moves an older one (is_displaced). `standing` says how it is shown:
-- 0 not at all; 1 under its name, as its columns say; 2 as the law of reading says, because something else claims its name, it has several values, or
-- it lives through what is in it.
ALTER TABLE files ADD COLUMN standing SMALLINT NOT NULL DEFAULT 1;
ALTER TABLE files ADD COLUMN is_displaced BOOLEAN NOT NULL DEFAULT false;

-- Up to which number of the feed the two are right; where it is not the head, the next reader computes them anew. A release before this one writes
-- numbers and not this.
ALTER TABLE namespaces ADD COLUMN settled_seq BIGINT NOT NULL DEFAULT 0;

CREATE INDEX files_shown ON files (shard_key, namespace_id, parent_id, standing, file_name);
CREATE INDEX files_by_size ON files (shard_key, namespace_id, parent_id, file_size, file_name) WHERE standing = 1;
CREATE INDEX files_by_time ON files (shard_key, namespace_id, parent_id, updated_at, file_name) WHERE standing = 1;
CREATE INDEX files_contested ON files (shard_key, namespace_id, parent_id) WHERE standing = 2;
CREATE INDEX files_displaced ON files (shard_key, namespace_id) WHERE is_displaced;
-- What it was for is the beginning of files_shown.
DROP INDEX files_parent;
-- The trash, newest first: a page of it must not read past everything that lives.
CREATE INDEX files_deleted ON files (shard_key, namespace_id, seq) WHERE is_deleted AND purged_at IS NULL;

-- What was offered to an address and not taken yet: a namespace, or (with `file_id`) one file of it. Whether somebody has an account of that address
-- is not looked at: an invitation waits for whoever has it. Taken, it becomes a row of `members` or `shared_files`.
CREATE TABLE invitations (
    share_id     BLOB PRIMARY KEY NOT NULL CHECK (length(share_id) = 16),
    namespace_id BLOB NOT NULL REFERENCES namespaces (namespace_id) ON DELETE CASCADE,
    -- The file; empty for the whole namespace.
    file_id      BLOB NOT NULL,
    -- As it was typed, and the form under which two spellings are one account.
    email        TEXT NOT NULL,
    email_key    TEXT NOT NULL,
    role         TEXT NOT NULL CHECK (role IN ('viewer', 'editor')),
    invited_by   BLOB NOT NULL REFERENCES users (user_id) ON DELETE CASCADE,
    created_at   INTEGER NOT NULL,
    UNIQUE (namespace_id, file_id, email_key)
) STRICT, WITHOUT ROWID;
CREATE INDEX invitations_email ON invitations (email_key);
CREATE INDEX invitations_by ON invitations (invited_by);

-- One file is shared once with one user.
CREATE UNIQUE INDEX shared_files_once ON shared_files (namespace_id, file_id, shared_with_user_id);
CREATE INDEX shared_files_owner ON shared_files (owner_id);

-- Users who are no members and whose edits a namespace may hold: members who were removed, and those to whom a file of it was shared to write. What they
-- wrote may come from others' devices later, as after a restore.
CREATE TABLE past_writers (
    namespace_id BLOB NOT NULL REFERENCES namespaces (namespace_id) ON DELETE CASCADE,
    user_id      BLOB NOT NULL REFERENCES users (user_id) ON DELETE CASCADE,
    PRIMARY KEY (namespace_id, user_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX past_writers_user ON past_writers (user_id);

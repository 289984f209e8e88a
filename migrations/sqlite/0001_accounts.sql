-- Accounts: users, their devices and sessions, one-time codes, the audit log and the relay's own settings.
-- Ids are 16-byte blobs, times (`_at`) milliseconds since 1970 (UTC), sizes bytes. Secrets are stored as SHA-256 only.

CREATE TABLE settings (
    key         TEXT PRIMARY KEY NOT NULL,
    value       TEXT NOT NULL,
    updated_at  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE users (
    user_id        BLOB PRIMARY KEY NOT NULL CHECK (length(user_id) = 16),
    email          TEXT NOT NULL UNIQUE,
    -- The form under which two spellings are one account: trimmed and in lower case.
    email_key      TEXT NOT NULL UNIQUE,
    name           TEXT NOT NULL,
    password_hash  TEXT NOT NULL,
    role           TEXT NOT NULL CHECK (role IN ('user', 'admin')),
    storage_used   INTEGER NOT NULL DEFAULT 0 CHECK (storage_used >= 0),
    -- NULL: no limit of its own.
    storage_limit  INTEGER CHECK (storage_limit >= 0),
    disabled       INTEGER NOT NULL DEFAULT 0 CHECK (disabled IN (0, 1)),
    created_at     INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE devices (
    device_id     BLOB PRIMARY KEY NOT NULL CHECK (length(device_id) = 16),
    user_id       BLOB NOT NULL REFERENCES users (user_id) ON DELETE CASCADE,
    name          TEXT NOT NULL,
    public_key    BLOB NOT NULL UNIQUE CHECK (length(public_key) = 32),
    created_at    INTEGER NOT NULL,
    last_seen_at  INTEGER NOT NULL,
    revoked_at    INTEGER
) STRICT, WITHOUT ROWID;
CREATE INDEX devices_user ON devices (user_id);

-- A session is one family of refresh tokens.
CREATE TABLE sessions (
    session_id    BLOB PRIMARY KEY NOT NULL CHECK (length(session_id) = 16),
    user_id       BLOB NOT NULL REFERENCES users (user_id) ON DELETE CASCADE,
    device_id     BLOB REFERENCES devices (device_id) ON DELETE CASCADE,
    created_at    INTEGER NOT NULL,
    last_used_at  INTEGER NOT NULL,
    expires_at    INTEGER NOT NULL,
    revoked_at    INTEGER,
    revoked_why   TEXT
) STRICT, WITHOUT ROWID;
CREATE INDEX sessions_user ON sessions (user_id);
CREATE INDEX sessions_device ON sessions (device_id);
CREATE INDEX sessions_expiry ON sessions (expires_at);

CREATE TABLE refresh_tokens (
    token_hash   BLOB PRIMARY KEY NOT NULL CHECK (length(token_hash) = 32),
    session_id   BLOB NOT NULL REFERENCES sessions (session_id) ON DELETE CASCADE,
    -- The token that was exchanged for this one.
    parent_hash  BLOB,
    issued_at    INTEGER NOT NULL,
    expires_at   INTEGER NOT NULL,
    used_at      INTEGER
) STRICT, WITHOUT ROWID;
CREATE INDEX refresh_tokens_session ON refresh_tokens (session_id);
CREATE INDEX refresh_tokens_parent ON refresh_tokens (parent_hash);

-- One-time codes: 'join' links a device to its user, 'setup' makes the first administrator, 'invite' lets one person register,
-- 'reset' sets a new password.
CREATE TABLE one_time_codes (
    code_hash   BLOB PRIMARY KEY NOT NULL CHECK (length(code_hash) = 32),
    kind        TEXT NOT NULL CHECK (kind IN ('join', 'setup', 'invite', 'reset')),
    user_id     BLOB REFERENCES users (user_id) ON DELETE CASCADE,
    created_at  INTEGER NOT NULL,
    expires_at  INTEGER NOT NULL,
    used_at     INTEGER
) STRICT, WITHOUT ROWID;
CREATE INDEX one_time_codes_expiry ON one_time_codes (expires_at);

-- Append only. No secret, no file name.
CREATE TABLE audit (
    audit_id   INTEGER PRIMARY KEY AUTOINCREMENT,
    at         INTEGER NOT NULL,
    event      TEXT NOT NULL,
    user_id    BLOB,
    device_id  BLOB,
    remote_ip  TEXT,
    detail     TEXT NOT NULL DEFAULT ''
) STRICT;
CREATE INDEX audit_time ON audit (at);
CREATE INDEX audit_user ON audit (user_id, audit_id);

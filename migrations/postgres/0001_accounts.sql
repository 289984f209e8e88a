-- Accounts: users, their devices and sessions, one-time codes, the audit log and the relay's own settings.
-- Ids are 16 bytes, times (`_at`) milliseconds since 1970 (UTC), sizes bytes. Secrets are stored as SHA-256 only.

CREATE TABLE settings (
    key         TEXT PRIMARY KEY,
    value       TEXT NOT NULL,
    updated_at  BIGINT NOT NULL
);

CREATE TABLE users (
    user_id        BYTEA PRIMARY KEY CHECK (length(user_id) = 16),
    email          TEXT NOT NULL UNIQUE,
    -- The form under which two spellings are one account: trimmed and in lower case.
    email_key      TEXT COLLATE "C" NOT NULL UNIQUE,
    name           TEXT NOT NULL,
    password_hash  TEXT NOT NULL,
    role           TEXT NOT NULL CHECK (role IN ('user', 'admin')),
    -- NULL: no limit of its own. What is in use stands beside the content: `owners`.
    storage_limit  BIGINT CHECK (storage_limit >= 0),
    disabled       BOOLEAN NOT NULL DEFAULT false,
    created_at     BIGINT NOT NULL,
    -- Where the content of this user's namespaces stands; see `owners` in 0002.
    shard_key      SMALLINT NOT NULL DEFAULT 0 CHECK (shard_key >= 0)
);
CREATE INDEX users_shard ON users (shard_key);

CREATE TABLE devices (
    device_id     BYTEA PRIMARY KEY CHECK (length(device_id) = 16),
    user_id       BYTEA NOT NULL REFERENCES users (user_id) ON DELETE CASCADE,
    name          TEXT NOT NULL,
    public_key    BYTEA NOT NULL UNIQUE CHECK (length(public_key) = 32),
    created_at    BIGINT NOT NULL,
    last_seen_at  BIGINT NOT NULL,
    revoked_at    BIGINT
);
CREATE INDEX devices_user ON devices (user_id);

-- A session is one family of refresh tokens.
CREATE TABLE sessions (
    session_id    BYTEA PRIMARY KEY CHECK (length(session_id) = 16),
    user_id       BYTEA NOT NULL REFERENCES users (user_id) ON DELETE CASCADE,
    device_id     BYTEA REFERENCES devices (device_id) ON DELETE CASCADE,
    created_at    BIGINT NOT NULL,
    last_used_at  BIGINT NOT NULL,
    expires_at    BIGINT NOT NULL,
    revoked_at    BIGINT,
    revoked_why   TEXT
);
CREATE INDEX sessions_user ON sessions (user_id);
CREATE INDEX sessions_device ON sessions (device_id);
CREATE INDEX sessions_expiry ON sessions (expires_at);

CREATE TABLE refresh_tokens (
    token_hash   BYTEA PRIMARY KEY CHECK (length(token_hash) = 32),
    session_id   BYTEA NOT NULL REFERENCES sessions (session_id) ON DELETE CASCADE,
    -- The token that was exchanged for this one.
    parent_hash  BYTEA,
    issued_at    BIGINT NOT NULL,
    expires_at   BIGINT NOT NULL,
    used_at      BIGINT
);
CREATE INDEX refresh_tokens_session ON refresh_tokens (session_id);
CREATE INDEX refresh_tokens_parent ON refresh_tokens (parent_hash);

-- One-time codes: 'join' links a device to its user, 'setup' makes the first administrator, 'invite' lets one person register,
-- 'reset' sets a new password.
CREATE TABLE one_time_codes (
    code_hash   BYTEA PRIMARY KEY CHECK (length(code_hash) = 32),
    kind        TEXT NOT NULL CHECK (kind IN ('join', 'setup', 'invite', 'reset')),
    user_id     BYTEA REFERENCES users (user_id) ON DELETE CASCADE,
    created_at  BIGINT NOT NULL,
    expires_at  BIGINT NOT NULL,
    used_at     BIGINT
);
CREATE INDEX one_time_codes_expiry ON one_time_codes (expires_at);

-- Append only. No secret, no file name.
CREATE TABLE audit (
    audit_id   BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at         BIGINT NOT NULL,
    event      TEXT NOT NULL,
    user_id    BYTEA,
    device_id  BYTEA,
    remote_ip  TEXT,
    detail     TEXT NOT NULL DEFAULT ''
);
CREATE INDEX audit_time ON audit (at);
CREATE INDEX audit_user ON audit (user_id, audit_id);

-- Devices of one namespace that talk without the relay: what was last granted, and where devices say that they can be reached. In the directory.

-- One row per namespace whose grant was ever asked for. The epoch never falls, whatever the clock does.
CREATE TABLE memberships (
    namespace_id BYTEA PRIMARY KEY REFERENCES placements (namespace_id) ON DELETE CASCADE,
    epoch        BIGINT NOT NULL CHECK (epoch > 0),
    -- SHA-256 of the devices, users, roles and names that the grant lists.
    digest       BYTEA NOT NULL CHECK (length(digest) = 32),
    issued_at    BIGINT NOT NULL
);

CREATE TABLE device_addresses (
    device_id    BYTEA PRIMARY KEY REFERENCES devices (device_id) ON DELETE CASCADE,
    -- ADDRESS:PORT, separated by spaces, in the order in which the device named them.
    addresses    TEXT NOT NULL,
    announced_at BIGINT NOT NULL
);

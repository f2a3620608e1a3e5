-- An audit as version 1 of the schema wrote it.
CREATE TABLE IF NOT EXISTS audit (
    seq        INTEGER PRIMARY KEY,
    utc        TEXT NOT NULL,
    mono_ns    INTEGER NOT NULL,
    boot_id    TEXT NOT NULL,
    clock_ok   INTEGER NOT NULL,
    action     TEXT NOT NULL,
    actor      TEXT,
    actor_name TEXT,
    role       TEXT,
    channel    TEXT,
    target     TEXT,
    cause      TEXT,
    burst      TEXT,
    detail     TEXT
);
INSERT INTO audit VALUES
    (1, '2025-06-01T09:00:00.000Z', 12000000000, 'boot-0', 0, 'system.start', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL),
    (2, '2025-06-01T09:00:05.250Z', 17250000000, 'boot-0', 0, 'auth.login', 'guest-1', 'Gäst 1', 'GENERAL', NULL, NULL, NULL, NULL, NULL),
    (3, '2025-06-01T09:00:07.003Z', 19003000000, 'boot-0', 1, 'ptt.start', 'dispatch-2', 'Dana', 'DISPATCH', 'ops', 'guest-1', NULL, 'b2', '{"interrupted":"guest-1"}'),
    (4, '2025-06-01T09:00:08.000Z', 20000000000, 'boot-0', 1, 'gpio.fault', NULL, NULL, NULL, NULL, NULL, 'active-at-start', NULL, '{"line":"PTT_1"}'),
    (5, '2025-06-01T09:01:00.000Z', 72000000000, 'boot-0', 1, 'system.stop', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
PRAGMA user_version = 1;

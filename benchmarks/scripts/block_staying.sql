\set aid random(1, 100000)
BEGIN;
SET LOCAL app.tenant_id = 't0';
SELECT abalance FROM pgbench_accounts WHERE aid = :aid;
COMMIT;

\set aid random(1, 100000)
\set n random(0, 7)
SET app.tenant_id = 't:n';
SELECT abalance FROM pgbench_accounts WHERE aid = :aid;

#!/bin/sh
# Run once by each new PostgreSQL server: the application's login, and a table that says which server this is.
set -eu
psql -v ON_ERROR_STOP=1 -U "$POSTGRES_USER" -d "$POSTGRES_DB" -v password="$APP_PASSWORD" -v cluster="$CLUSTER" <<'SQL'
CREATE ROLE app LOGIN NOSUPERUSER NOBYPASSRLS PASSWORD :'password';
CREATE TABLE where_am_i (cluster text NOT NULL);
INSERT INTO where_am_i VALUES (:'cluster');
CREATE TABLE orders (
    tenant_id text NOT NULL DEFAULT current_setting('app.tenant_id', true),
    id bigint GENERATED ALWAYS AS IDENTITY,
    item text NOT NULL,
    PRIMARY KEY (tenant_id, id)
);
ALTER TABLE orders ENABLE ROW LEVEL SECURITY;
CREATE POLICY own_rows ON orders
    USING (tenant_id = current_setting('app.tenant_id', true))
    WITH CHECK (tenant_id = current_setting('app.tenant_id', true));
GRANT SELECT ON where_am_i TO app;
GRANT SELECT, INSERT, UPDATE, DELETE ON orders TO app;
SQL

-- A small tenant on the shared cluster: one order by its number, behind row-level security.
\set id random(1, 100)
SELECT id, customer_id, ordered_on FROM orders WHERE id = :id;

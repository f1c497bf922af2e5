-- A tenant of the shared cluster at work: three reads, and one order placed in a transaction.
\set id random(1, 100)
\set customer random(1, 20)
\set product random(1, 9)
SELECT id, name, price FROM products WHERE id = :product;
SELECT id, customer_id, ordered_on FROM orders WHERE id = :id;
SELECT o.id, l.product_id, l.quantity FROM orders o JOIN order_lines l ON l.order_id = o.id AND l.tenant_id = o.tenant_id WHERE o.id = :id;
BEGIN;
INSERT INTO orders (customer_id) VALUES (:customer) RETURNING id AS order_id \gset
INSERT INTO order_lines (order_id, product_id, quantity) VALUES (:order_id, :product, 2), (:order_id, :product + 1, 1);
COMMIT;

-- A large tenant on its own server: a month's revenue, and an order with two lines.
\set customer random(1, 20)
\set product random(1, 8)
SELECT month, amount FROM revenue ORDER BY month DESC LIMIT 3;
BEGIN;
INSERT INTO orders (customer_id) VALUES (:customer) RETURNING id AS order_id \gset
INSERT INTO order_lines (order_id, product_id, quantity) VALUES (:order_id, :product, 2), (:order_id, :product + 1, 1);
COMMIT;

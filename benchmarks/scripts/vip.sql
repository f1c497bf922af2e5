-- A mid-sized tenant on a shard: reads an order with its lines, now and then changes a price.
\set id random(1, 100)
\set product random(1, 10)
SELECT o.id, o.ordered_on, l.product_id, l.quantity FROM orders o JOIN order_lines l ON l.order_id = o.id AND l.tenant_id = o.tenant_id WHERE o.id = :id;
UPDATE products SET price = price + 0.01 WHERE id = :product;

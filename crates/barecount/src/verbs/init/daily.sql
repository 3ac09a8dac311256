-- The days of 2024 by weekday, Sunday = 0. The year began on a Monday and has 366 days.
CREATE VIEW digit AS
SELECT CAST(column1 AS BIGINT) AS n
FROM (VALUES (0), (1), (2), (3), (4), (5), (6), (7), (8), (9));

CREATE VIEW day AS
SELECT hundreds.n * 100 + tens.n * 10 + ones.n AS number
FROM digit AS hundreds CROSS JOIN digit AS tens CROSS JOIN digit AS ones
WHERE hundreds.n * 100 + tens.n * 10 + ones.n < 366;

INSERT INTO kpi.weekdays
SELECT (number + 1) % 7 AS weekday, count(*) AS days
FROM day
GROUP BY (number + 1) % 7;

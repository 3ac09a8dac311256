-- Each day of a month.
CREATE VIEW daily AS
SELECT
    month,
    day,
    count(*) AS flights,
    count(*) FILTER (WHERE cancelled) AS cancelled,
    CAST(sum(dep_delay) AS DECIMAL(18, 0)) AS delay,
    CAST(count(dep_delay) AS DECIMAL(18, 0)) AS departed
FROM gdp.flights
GROUP BY month, day;

-- flights_so_far:     of the month, this day's among them.
-- change:             against the day before; null on the first.
-- mean_delay_of_days: of all departures of this day and those before it, seven days at most.
-- place:              by cancellations; the most come first, and of equal ones the earlier day.
INSERT INTO kpi.days
SELECT
    month,
    day,
    flights,
    cancelled,
    sum(flights) OVER (ORDER BY day) AS flights_so_far,
    flights - lag(flights) OVER (ORDER BY day) AS change,
    CAST(
        CAST(sum(delay) OVER lately AS DECIMAL(18, 0))
            / nullif(CAST(sum(departed) OVER lately AS DECIMAL(18, 0)), 0)
        AS DECIMAL(12, 4)
    ) AS mean_delay_of_days,
    CAST(rank() OVER (ORDER BY cancelled DESC, day) AS BIGINT) AS place
FROM daily
WINDOW lately AS (ORDER BY day ROWS BETWEEN 6 PRECEDING AND CURRENT ROW)
ORDER BY day;

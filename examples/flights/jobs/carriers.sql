-- The flights of each airline in a month.
--
-- cancelled_share: of all flights.  late: arrived more than so many minutes after time.
-- Means are of those that left, or arrived; rounded half away from zero.
INSERT INTO kpi.carriers
SELECT
    flights.month,
    flights.carrier,
    airlines.name,
    count(*) AS flights,
    count(*) FILTER (WHERE cancelled) AS cancelled,
    count(*) FILTER (WHERE arr_delay > 15) AS late,
    CAST(
        CAST(count(*) FILTER (WHERE cancelled) AS DECIMAL(18, 0)) / CAST(count(*) AS DECIMAL(18, 0))
        AS DECIMAL(9, 6)
    ) AS cancelled_share,
    CAST(
        CAST(sum(dep_delay) AS DECIMAL(18, 0)) / nullif(CAST(count(dep_delay) AS DECIMAL(18, 0)), 0)
        AS DECIMAL(12, 4)
    ) AS mean_dep_delay,
    CAST(
        CAST(sum(arr_delay) AS DECIMAL(18, 0)) / nullif(CAST(count(arr_delay) AS DECIMAL(18, 0)), 0)
        AS DECIMAL(12, 4)
    ) AS mean_arr_delay,
    percentile_cont(0.9) WITHIN GROUP (ORDER BY CAST(arr_delay AS DOUBLE)) AS p90_arr_delay
FROM gdp.flights
JOIN gdp.airlines ON airlines.carrier = flights.carrier
GROUP BY flights.month, flights.carrier, airlines.name
ORDER BY flights.carrier;

-- Statistics of the euro reference rates, per month and per currency.
--
-- A rate is the number of units of the currency that one euro buys, so a rising rate is a rising
-- euro. An observation is a rate that was published; days without one do not count.
--
-- Every figure is computed from decimals. Their sums are exact, and so the same in whatever order
-- the rows come and however many threads add them up; the two steps that decimals lack, the
-- logarithm and the square root, are taken from one value at a time. Every ordering is by currency
-- and date, which together are unique. Figures are rounded half away from zero, at the very end.

-- Each observation with the one before it, as a logarithmic return of fifteen decimals.
CREATE VIEW daily AS
SELECT
    currency,
    date,
    CAST(date_trunc('month', date) AS DATE) AS month,
    rate,
    CAST(
        round(ln(CAST(rate AS DOUBLE)
            / CAST(lag(rate) OVER (PARTITION BY currency ORDER BY date) AS DOUBLE)), 15)
        AS DECIMAL(18, 15)
    ) AS log_return
FROM gdp.fx_rates;

-- The count, the sum and the sum of squares of the last thirty returns, at each observation.
CREATE VIEW trailing_returns AS
SELECT
    currency,
    date,
    month,
    rate,
    row_number() OVER (PARTITION BY currency, month ORDER BY date DESC) AS days_to_month_end,
    count(log_return) OVER last_30 AS returns,
    sum(log_return) OVER last_30 AS sum_of_returns,
    sum(CAST(log_return * log_return AS DECIMAL(38, 30))) OVER last_30 AS sum_of_squares
FROM daily
WINDOW last_30 AS (PARTITION BY currency ORDER BY date ROWS BETWEEN 29 PRECEDING AND CURRENT ROW);

-- The last observation of each month. Thirty times the sum of squares less the square of the sum is
-- n (n - 1) times the sample variance.
CREATE VIEW month_end AS
SELECT
    currency,
    month,
    rate,
    CASE WHEN returns = 30 THEN
        CAST(30 * sum_of_squares AS DECIMAL(38, 30))
            - CAST(sum_of_returns * sum_of_returns AS DECIMAL(38, 30))
    END AS scaled_variance
FROM trailing_returns
WHERE days_to_month_end = 1;

CREATE VIEW month_mean AS
SELECT currency, month, avg(rate) AS mean_rate
FROM daily
GROUP BY currency, month;

-- month_end_rate: the last observation of the month.
-- mean_rate:      the arithmetic mean of the month's observations.
-- volatility_30d: the sample standard deviation of the last thirty daily logarithmic returns as of
--                 the month's last observation, times the square root of 252 trading days; null
--                 until there are thirty.
-- change_on_year: the month-end rate against that of the same month a year before, less one; null
--                 where none was published then.
INSERT INTO kpi.fx_monthly
SELECT
    CAST(date_part('year', month_end.month) AS BIGINT) AS year,
    month_end.month,
    month_end.currency,
    month_end.rate AS month_end_rate,
    CAST(month_mean.mean_rate AS DECIMAL(18, 6)) AS mean_rate,
    CAST(
        round(sqrt(CAST(month_end.scaled_variance AS DOUBLE) / (30 * 29) * 252), 6)
        AS DECIMAL(18, 6)
    ) AS volatility_30d,
    CAST(
        CAST(month_end.rate - a_year_before.rate AS DECIMAL(28, 14)) / a_year_before.rate
        AS DECIMAL(18, 6)
    ) AS change_on_year
FROM month_end
JOIN month_mean
    ON month_mean.currency = month_end.currency AND month_mean.month = month_end.month
LEFT JOIN month_end AS a_year_before
    ON a_year_before.currency = month_end.currency
    AND a_year_before.month = CAST(month_end.month - INTERVAL '12 months' AS DATE)
ORDER BY month_end.currency, month_end.month;

-- The highest rate up to and including each observation.
CREATE VIEW running_peak AS
SELECT
    currency,
    date,
    rate,
    max(rate) OVER (
        PARTITION BY currency ORDER BY date ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW
    ) AS peak
FROM gdp.fx_rates;

-- The deepest fall below the highest rate before it; of equally deep ones the earliest.
CREATE VIEW trough AS
SELECT currency, date, peak, drawdown
FROM (
    SELECT
        currency,
        date,
        peak,
        drawdown,
        row_number() OVER (PARTITION BY currency ORDER BY drawdown, date) AS place
    FROM (
        SELECT
            currency,
            date,
            peak,
            CAST(rate - peak AS DECIMAL(28, 14)) / peak AS drawdown
        FROM running_peak
    ) AS falls
) AS ranked
WHERE place = 1;

-- worst_drawdown: the largest fall of the euro against the currency from a peak of its rate, as a
--                 negative fraction of the peak; zero if it never fell.
-- peak_date:      the first day on which the rate stood at that peak.
-- trough_date:    the first day on which it had fallen that far.
INSERT INTO kpi.fx_drawdown
SELECT
    trough.currency,
    CAST(trough.drawdown AS DECIMAL(18, 6)) AS worst_drawdown,
    min(running_peak.date) AS peak_date,
    trough.date AS trough_date
FROM trough
JOIN running_peak
    ON running_peak.currency = trough.currency
    AND running_peak.rate = trough.peak
    AND running_peak.date <= trough.date
GROUP BY trough.currency, trough.drawdown, trough.date
ORDER BY trough.currency;

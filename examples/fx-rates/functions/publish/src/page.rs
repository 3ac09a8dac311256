//! The report page: one file that asks for nothing else, readable in light and dark, on a phone, on
//! paper and by a screen reader. The same figures make the same page, byte for byte.

use std::collections::BTreeMap;

use rust_decimal::Decimal;
use rust_decimal::prelude::ToPrimitive;

use crate::chart;
use crate::currency::{self, CHARTED};
use crate::figures::{Figures, InvoiceYear, Month, Series};
use crate::text::{self, Escaped};

const STYLE: &str = include_str!("page.css");

const NOTHING: &str = r#"<td class="soft">–</td>"#;

/// Renders the page.
pub(crate) fn render(figures: &Figures) -> String {
    let (first, last) = figures.span;
    let current = figures
        .currencies
        .values()
        .filter(|series| is_current(series, last))
        .count();
    format!(
        r#"<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="description" content="Euro reference rates: monthly figures, volatility, worst falls, and invoices in euro.">
<title>Euro reference rates, {from} to {to}</title>
<style>
{STYLE}</style>
</head>
<body>
<main>
<header>
<h1>What a euro buys</h1>
<p class="lead">The euro's reference rates at the end of each month from {from} to {to}, in {all} currencies, {current} of which still had one published in the last month.</p>
<p class="soft">A rate is the number of units of a currency for one euro, so a rising line is a rising euro.</p>
</header>
{charts}
{invoices}
{currencies}
{definitions}
</main>
<footer>
<p>Source of the rates: European Central Bank, euro foreign exchange reference rates. The figures made of them here are not the European Central Bank's. The invoices are synthetic.</p>
</footer>
</body>
</html>
"#,
        from = text::month(first),
        to = text::month(last),
        all = figures.currencies.len(),
        charts = charts(figures),
        invoices = invoices(&figures.invoices),
        currencies = currencies(figures),
        definitions = DEFINITIONS,
    )
}

fn is_current(series: &Series, last: i32) -> bool {
    series
        .months
        .last()
        .is_some_and(|month| month.index == last)
}

fn charts(figures: &Figures) -> String {
    let chosen = CHARTED
        .iter()
        .filter_map(|code| Some((*code, figures.currencies.get(*code)?)));
    let charts: String = chosen
        .map(|(code, series)| figure(code, series, figures.span))
        .collect();
    format!(
        r#"<section aria-labelledby="charts">
<h2 id="charts">Over time</h2>
<p class="soft">Month-end rates; each chart has a scale of its own. <span class="legend"><span class="key fall"></span>The worst fall of the euro against the currency.</span></p>
<div class="charts">
{charts}</div>
</section>"#
    )
}

fn figure(code: &str, series: &Series, span: (i32, i32)) -> String {
    let name = currency::name(code);
    let now = series.months.last();
    let change = now
        .and_then(|month| month.change_on_year)
        .map_or(String::new(), |change| {
            format!("{} on the year", text::signed_percent(change))
        });
    format!(
        r#"<figure>
<figcaption><h3>EUR/{code}</h3><span class="now">{rate}</span><span class="name">{name}</span><span class="change">{change}</span></figcaption>
{chart}
</figure>
"#,
        rate = now.map_or(String::new(), |month| text::rate(month.rate)),
        chart = chart::line(code, name, series, span),
        code = Escaped(code),
        name = Escaped(name),
    )
}

fn invoices(years: &BTreeMap<String, InvoiceYear>) -> String {
    let most = years
        .values()
        .map(|year| year.total)
        .max()
        .unwrap_or_default();
    let most = most.to_f64().filter(|most| *most > 0.0).unwrap_or(1.0);
    let rows: String = years
        .iter()
        .map(|(year, sums)| invoice_row(year, sums, most))
        .collect();
    let count: u64 = years.values().map(|year| year.count).sum();
    let total: Decimal = years.values().map(|year| year.total).sum();
    let foreign: Decimal = years.values().map(|year| year.foreign).sum();
    format!(
        r#"<section aria-labelledby="invoices">
<h2 id="invoices">Invoices in euro</h2>
<p class="soft">Each invoice at the reference rate in force on the day of issue. <span class="legend"><span class="key up"></span>Issued in another currency</span> <span class="legend"><span class="key rest"></span>issued in euro</span></p>
<div class="scroll" role="region" aria-labelledby="invoices" tabindex="0"><table>
<thead><tr><th scope="col">Year</th><th scope="col">Invoices</th><th scope="col">Total</th><th scope="col">Of it in other currencies</th><th scope="col" class="wide"><span hidden>Bar</span></th></tr></thead>
<tbody>
{rows}<tr><th scope="row">All</th><td>{count}</td><td>{total}</td><td>{foreign}</td><td class="wide"></td></tr>
</tbody></table></div>
</section>"#,
        count = text::grouped(&count.to_string()),
        total = text::money(total),
        foreign = text::money(foreign),
    )
}

fn invoice_row(year: &str, sums: &InvoiceYear, most: f64) -> String {
    let bar = chart::split_bar(
        sums.foreign.to_f64().unwrap_or(0.0),
        sums.total.to_f64().unwrap_or(0.0),
        most,
    );
    format!(
        r#"<tr><th scope="row">{year}</th><td>{count}</td><td>{total}</td><td>{foreign}</td><td class="wide">{bar}</td></tr>
"#,
        year = Escaped(year),
        count = text::grouped(&sums.count.to_string()),
        total = text::money(sums.total),
        foreign = text::money(sums.foreign),
    )
}

fn currencies(figures: &Figures) -> String {
    let (_, last) = figures.span;
    let (current, past): (Vec<_>, Vec<_>) = figures
        .currencies
        .iter()
        .partition(|(_, series)| is_current(series, last));
    let changes = current
        .iter()
        .filter_map(|(_, series)| series.months.last()?.change_on_year);
    let most = changes.map(f64::abs).fold(0.01, f64::max);
    let rows = |part: &[(&String, &Series)]| -> String {
        part.iter()
            .map(|(code, series)| currency_row(code, series, last, most))
            .collect()
    };
    let past_rows = if past.is_empty() {
        String::new()
    } else {
        format!(
            r#"<tbody>
<tr><th class="group" colspan="7" scope="colgroup">No longer published: the figures of the last month that was</th></tr>
{}</tbody>
"#,
            rows(&past)
        )
    };
    format!(
        r#"<section aria-labelledby="currencies">
<h2 id="currencies">By currency</h2>
<p class="soft">Figures of {month}. A plus means that the euro rose against the currency.</p>
<div class="scroll" role="region" aria-labelledby="currencies" tabindex="0"><table>
<thead><tr><th scope="col">Currency</th><th scope="col">Month-end rate</th><th scope="col">Change on the year</th><th scope="col">Volatility, 30&nbsp;days</th><th scope="col">Worst fall</th><th scope="col">from</th><th scope="col">to</th></tr></thead>
<tbody>
{current_rows}</tbody>
{past_rows}</table></div>
</section>"#,
        month = text::month(last),
        current_rows = rows(&current),
    )
}

fn currency_row(code: &str, series: &Series, last: i32, most: f64) -> String {
    let Some(month) = series.months.last() else {
        return String::new();
    };
    let fall = series.drawdown.as_ref().map_or(NOTHING.repeat(3), |fall| {
        format!(
            "<td>{}</td><td>{}</td><td>{}</td>",
            text::signed_percent(fall.depth),
            text::day(&fall.peak),
            text::day(&fall.trough),
        )
    });
    let until = if month.index == last {
        String::new()
    } else {
        format!(", until {}", text::month(month.index))
    };
    format!(
        r#"<tr><th scope="row">{code}<span class="name">{name}{until}</span></th><td>{rate}</td>{change}{volatility}{fall}</tr>
"#,
        code = Escaped(code),
        name = Escaped(currency::name(code)),
        rate = text::rate(month.rate),
        change = change_cell(month, most),
        volatility = month.volatility.map_or(NOTHING.to_owned(), |value| format!(
            "<td>{}</td>",
            text::percent(value)
        )),
    )
}

fn change_cell(month: &Month, most: f64) -> String {
    month.change_on_year.map_or(NOTHING.to_owned(), |change| {
        let bar = chart::diverging_bar(change, most);
        format!("<td>{}{bar}</td>", text::signed_percent(change))
    })
}

const DEFINITIONS: &str = r#"<section aria-labelledby="definitions">
<h2 id="definitions">What the figures mean</h2>
<dl>
<dt>Month-end rate</dt><dd>The last rate published in the month.</dd>
<dt>Change on the year</dt><dd>The month-end rate against that of the same month a year before.</dd>
<dt>Volatility, 30 days</dt><dd>The sample standard deviation of the last thirty daily logarithmic returns as of the month's last rate, times the square root of 252 trading days.</dd>
<dt>Worst fall</dt><dd>The largest fall of the rate below an earlier peak, over all published days; from the first day at the peak to the first day at the trough.</dd>
<dt>Invoices in euro</dt><dd>Amount divided by the last rate published on or before the day of issue, if no more than ten days old, rounded to cents, half to even. Invoices without such a rate are put aside and not counted.</dd>
</dl>
</section>"#;

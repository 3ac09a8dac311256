//! Charts as inline SVG: colours come from the page's style sheet, so they follow light and dark.

use crate::figures::Series;
use crate::text::{self, Escaped};

const WIDTH: f64 = 360.0;
const HEIGHT: f64 = 190.0;
const LEFT: f64 = 40.0;
const RIGHT: f64 = 348.0;
const TOP: f64 = 10.0;
const BOTTOM: f64 = 166.0;

/// The place of a month and of a rate on the canvas.
struct Scale {
    months: (i32, i32),
    rates: (f64, f64),
}

impl Scale {
    fn x(&self, month: i32) -> f64 {
        let (first, last) = self.months;
        LEFT + f64::from(month - first) / f64::from((last - first).max(1)) * (RIGHT - LEFT)
    }

    fn y(&self, rate: f64) -> f64 {
        let (low, high) = self.rates;
        BOTTOM - (rate - low) / (high - low) * (BOTTOM - TOP)
    }
}

/// The month-end rates of a currency as a line, with its worst fall shaded.
pub(crate) fn line(code: &str, name: &str, series: &Series, months: (i32, i32)) -> String {
    let rates = || series.months.iter().map(|month| month.rate);
    let (low, high) = (
        rates().fold(f64::MAX, f64::min),
        rates().fold(f64::MIN, f64::max),
    );
    let margin = ((high - low) * 0.06).max(high.abs() * 0.001);
    let scale = Scale {
        months,
        rates: (low - margin, high + margin),
    };
    let id = Escaped(code).to_string().to_lowercase();
    let end = series.months.last().map_or(String::new(), |month| {
        let (x, y) = (scale.x(month.index), scale.y(month.rate));
        format!(r#"<circle class="end" cx="{x:.1}" cy="{y:.1}" r="3.5"/>"#)
    });
    format!(
        r#"<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-labelledby="t-{id} d-{id}">
<title id="t-{id}">{title}</title>
<desc id="d-{id}">{description}</desc>
{fall}{grid}{years}<path class="line" d="{path}"/>{end}
</svg>"#,
        title = Escaped(&format!("One euro in {name}, month by month")),
        description = Escaped(&description(series, low, high)),
        fall = fall(series, &scale),
        grid = grid(&scale),
        years = years(&scale),
        path = path(series, &scale),
    )
}

/// The chart in words, for those who do not see it.
fn description(series: &Series, low: f64, high: f64) -> String {
    let (Some(first), Some(last)) = (series.months.first(), series.months.last()) else {
        return String::from("No rate was published.");
    };
    let range = format!(
        "A line from {} in {} to {} in {}, between {} and {}.",
        text::rate(first.rate),
        text::month(first.index),
        text::rate(last.rate),
        text::month(last.index),
        text::rate(low),
        text::rate(high),
    );
    series.drawdown.as_ref().map_or(range.clone(), |fall| {
        format!(
            "{range} The worst fall of the euro, {}, from {} to {}, is shaded.",
            text::signed_percent(fall.depth),
            text::day(&fall.peak),
            text::day(&fall.trough),
        )
    })
}

fn fall(series: &Series, scale: &Scale) -> String {
    let Some((peak, trough)) = series.drawdown.as_ref().and_then(|fall| fall.span()) else {
        return String::new();
    };
    // A fall within one month still shows as a hair.
    let (x, width) = (scale.x(peak), (scale.x(trough) - scale.x(peak)).max(1.0));
    format!(
        r#"<rect class="fall" x="{x:.1}" y="{TOP}" width="{width:.1}" height="{:.1}"/>"#,
        BOTTOM - TOP
    )
}

fn grid(scale: &Scale) -> String {
    let (low, high) = scale.rates;
    let step = step(high - low);
    let decimals = if step >= 1.0 { 0 } else { 2 };
    let mut lines = String::new();
    let mut tick = (low / step).ceil() * step;
    while tick <= high {
        let y = scale.y(tick);
        lines.push_str(&format!(
            r#"<line class="grid" x1="{LEFT}" x2="{RIGHT}" y1="{y:.1}" y2="{y:.1}"/><text x="{x}" y="{below:.1}" text-anchor="end">{label}</text>"#,
            x = LEFT - 6.0,
            below = y + 3.5,
            label = text::grouped(&format!("{tick:.decimals$}")),
        ));
        tick += step;
    }
    lines
}

/// The distance of grid lines, of the kind 1, 2 or 5, so that there are three to six of them.
fn step(range: f64) -> f64 {
    let rough = range / 5.0;
    let power = 10_f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0]
        .into_iter()
        .find(|step| step * power >= rough)
        .unwrap_or(10.0);
    // Labels have two decimals at most.
    (step * power).max(0.01)
}

fn years(scale: &Scale) -> String {
    let (first, last) = scale.months;
    (first.div_euclid(12)..=last.div_euclid(12))
        .filter(|year| year % 5 == 0)
        .map(|year| {
            let x = scale.x(year * 12);
            format!(
                r#"<line class="tick" x1="{x:.1}" x2="{x:.1}" y1="{BOTTOM}" y2="{tick}"/><text x="{x:.1}" y="{y}" text-anchor="middle">{year}</text>"#,
                tick = BOTTOM + 4.0,
                y = BOTTOM + 17.0,
            )
        })
        .collect()
}

/// The line itself, broken where a month has no rate.
fn path(series: &Series, scale: &Scale) -> String {
    let mut path = String::new();
    let mut before = None;
    for month in &series.months {
        let joined = before == Some(month.index - 1);
        let (x, y) = (scale.x(month.index), scale.y(month.rate));
        path.push_str(&format!("{}{x:.1} {y:.1}", if joined { 'L' } else { 'M' }));
        before = Some(month.index);
    }
    path
}

/// A bar to the left or the right of a middle line, for a table's cell; the cell has the number too.
pub(crate) fn diverging_bar(value: f64, most: f64) -> String {
    let half = 36.0;
    let length = (value.abs() / most * half).clamp(0.5, half);
    let (class, x) = if value < 0.0 {
        ("down", half - length)
    } else {
        ("up", half)
    };
    format!(
        r#"<svg class="bar" viewBox="0 0 72 12" aria-hidden="true"><rect class="{class}" x="{x:.1}" y="2" width="{length:.1}" height="8" rx="1"/><line class="axis" x1="{half}" x2="{half}" y1="0" y2="12"/></svg>"#
    )
}

/// Two bars end to end, of a part and the rest, for a table's cell.
pub(crate) fn split_bar(part: f64, whole: f64, most: f64) -> String {
    let width = 160.0;
    let (part, whole) = (part / most * width, whole / most * width);
    format!(
        r#"<svg class="wide" viewBox="0 0 {width} 14" preserveAspectRatio="none" aria-hidden="true"><rect class="up" width="{part:.1}" height="14"/><rect class="rest" x="{part:.1}" width="{:.1}" height="14"/></svg>"#,
        (whole - part).max(0.0)
    )
}

//! `report.html`: a run's tables and plots in one file that needs no network.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use plotters::prelude::*;

use super::benchmark::{BankState, QuestionOutcome};
use super::bootstrap;
use super::report::{BenchmarkReport, Intervals};
use super::scores::Totals;
use crate::error::{Error, Result};

const SIZE: (u32, u32) = (640, 320);
const COLORS: [RGBColor; 5] = [
    RGBColor(31, 119, 180),
    RGBColor(214, 39, 40),
    RGBColor(44, 160, 44),
    RGBColor(255, 127, 14),
    RGBColor(90, 90, 90),
];

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;max-width:1320px;margin:2rem auto;padding:0 1rem;color:#222}\
table{border-collapse:collapse;margin:1rem 0}td,th{padding:.2rem .7rem;border-bottom:1px solid #ddd;text-align:right;\
vertical-align:top}td.text,th.text{text-align:left}figure{display:inline-block;margin:0 .5rem 1rem 0}svg{max-width:100%}\
summary{cursor:pointer;margin:1rem 0}";

/// The page.
pub fn page(report: &BenchmarkReport, states: &[BankState], outcomes: &[QuestionOutcome]) -> Result<String> {
    let mut html = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>{system} with {model}</title>\
         <style>{STYLE}</style></head><body>\n<h1>{system} with {model}</h1>\n",
        system = report.system,
        model = escaped(&report.model)
    );
    let _ = writeln!(html, "{}", settings(report));
    let _ = writeln!(html, "<h2>Scores</h2>\n{}", scores(&report.totals, &report.intervals));
    if let Some(own) = &report.corrected {
        let _ = writeln!(
            html,
            "<h2>Scores against corrected labels</h2>\n<p>{} of the questions have another answer than the \
             released one.</p>\n{}",
            own.corrections,
            scores(&own.totals, &own.intervals)
        );
    }
    for plot in [
        categories(outcomes, report.seed)?,
        lines("memories of all banks", "turns read", "memories", &growth(states))?,
        lines("operations decided", "turns read", "operations", &operations(states))?,
        lines(
            "how long it takes",
            "per cent of turns or questions",
            "seconds",
            &latencies(states, outcomes),
        )?,
    ] {
        let _ = writeln!(html, "<figure>{plot}</figure>");
    }
    let _ = writeln!(
        html,
        "<details><summary>{} questions</summary>\n{}</details>",
        outcomes.len(),
        questions(outcomes)
    );
    html.push_str("</body></html>\n");
    Ok(html)
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

fn settings(report: &BenchmarkReport) -> String {
    let ops: Vec<String> = report.ops.iter().map(|(name, count)| format!("{name} {count}")).collect();
    let rows = [
        ("conversations, turns", format!("{}, {}", report.conversations, report.turns)),
        ("facts and operations", format!("{}: {}", report.facts, ops.join(", "))),
        ("memories at the end", format!("{}, {} of them said twice", report.bank, report.duplicates)),
        (
            "statements that no longer hold",
            report.stale.map_or_else(
                || "not known".to_owned(),
                |own| format!("{}, {} of them still in a bank", own.superseded, own.stale),
            ),
        ),
        (
            "evidence recall",
            format!(
                "{:.3} of {} questions, {:.3} kept in the banks ({} memories of a speaker shown)",
                report.evidence.recall, report.evidence.n, report.evidence.kept, report.evidence.k
            ),
        ),
        ("left out for want of room", format!("{:.1} %", 100.0 * report.left_out)),
        ("distillation", if report.no_distillation { "no" } else { "yes" }.to_owned()),
        ("computed on", report.device.clone()),
        ("weights, sha256", report.fingerprint.clone()),
        ("temperature, seed", format!("{}, {}", report.temperature, report.seed)),
        ("seconds", format!("{:.1}, {:.1} of them reading", report.seconds, report.seconds_reading)),
    ];
    let judge = report.judge.as_ref().map(|own| {
        let by_category: Vec<String> =
            own.by_category.iter().map(|(name, share)| format!("{name}: {:.2}", 100.0 * share)).collect();
        let (share, n) = (100.0 * own.accuracy, own.n);
        let text = format!("{share:.2} % of {n} right ({}), says {}", by_category.join(", "), own.model);
        ("judge", text)
    });
    let rows: Vec<String> = rows
        .into_iter()
        .chain(judge)
        .map(|(name, value)| {
            format!("<tr><th class=\"text\">{name}</th><td class=\"text\">{}</td></tr>", escaped(&value))
        })
        .collect();
    format!("<table>{}</table>", rows.join("\n"))
}

fn scores(totals: &Totals, intervals: &Intervals) -> String {
    let percent = |value: f64| format!("<td>{:.2}</td>", 100.0 * value);
    let mut table =
        "<table><tr><th class=\"text\">category</th><th>n</th><th>F1</th><th>BLEU-1</th><th>exact match</th>\
                     <th>LoCoMo's F1</th><th>declined</th></tr>\n"
            .to_owned();
    for (name, own) in &totals.by_category {
        let cells =
            [own.scores.f1, own.scores.bleu1, own.scores.exact_match, own.scores.locomo_f1, own.declined]
                .map(percent)
                .concat();
        let _ =
            writeln!(table, "<tr><td class=\"text\">{}</td><td>{}</td>{cells}</tr>", escaped(name), own.n);
    }
    let pooled = totals.scores;
    let cells = [pooled.f1, pooled.bleu1, pooled.exact_match, pooled.locomo_f1].map(percent).concat();
    let _ =
        writeln!(table, "<tr><th class=\"text\">answerable</th><td>{}</td>{cells}<td></td></tr>", totals.n);
    let bounds = [intervals.f1, intervals.bleu1, intervals.exact_match];
    let cells =
        bounds.map(|[low, high]| format!("<td>{:.2} to {:.2}</td>", 100.0 * low, 100.0 * high)).concat();
    let _ = writeln!(
        table,
        "<tr><th class=\"text\">95 % interval</th><td></td>{cells}<td></td><td></td></tr></table>"
    );
    table
}

fn questions(outcomes: &[QuestionOutcome]) -> String {
    let mut table =
        "<table><tr><th class=\"text\">conversation</th><th>category</th><th class=\"text\">question</th>\
                     <th class=\"text\">gold</th><th class=\"text\">answer</th><th>F1</th></tr>\n"
            .to_owned();
    for own in outcomes {
        let [id, category, question, gold, answer] =
            [&own.sample_id, &own.category, &own.question, &own.answer, &own.prediction]
                .map(|text| escaped(text));
        let _ = writeln!(
            table,
            "<tr><td class=\"text\">{id}</td><td>{category}</td><td class=\"text\">{question}</td>\
             <td class=\"text\">{gold}</td><td class=\"text\">{answer}</td><td>{:.2}</td></tr>",
            own.scores.f1
        );
    }
    table + "</table>\n"
}

type Series = (String, Vec<(f64, f64)>);

/// What `value` says of all conversations together, after as many turns of each.
fn summed(states: &[BankState], value: impl Fn(&super::Growth) -> usize) -> Vec<(f64, f64)> {
    let mut steps: BTreeMap<usize, i64> = BTreeMap::from([(0, 0)]);
    for state in states {
        let mut before = 0;
        for point in &state.growth {
            let now = value(point) as i64;
            *steps.entry(point.turns).or_default() += now - before;
            before = now;
        }
    }
    let mut sum = 0;
    let totals = steps.into_iter().map(|(turns, step)| {
        sum += step;
        (turns as f64, sum as f64)
    });
    totals.collect()
}

fn growth(states: &[BankState]) -> Vec<Series> {
    vec![("memories".to_owned(), summed(states, |point| point.memories))]
}

fn operations(states: &[BankState]) -> Vec<Series> {
    let last = states.iter().filter_map(|state| state.growth.last());
    let names: std::collections::BTreeSet<&String> = last.flat_map(|point| point.ops.keys()).collect();
    let of = |name: &String| summed(states, |point| point.ops.get(name).copied().unwrap_or_default());
    names.into_iter().map(|name| (name.clone(), of(name))).collect()
}

/// For each share of all, what so many do not exceed.
fn latencies(states: &[BankState], outcomes: &[QuestionOutcome]) -> Vec<Series> {
    let curve = |mut seconds: Vec<f64>| {
        seconds.sort_by(f64::total_cmp);
        let most = seconds.len().max(1) as f64;
        seconds.iter().enumerate().map(|(i, own)| (100.0 * (i + 1) as f64 / most, *own)).collect()
    };
    let turns = states.iter().flat_map(|state| state.turn_seconds.iter().copied()).collect();
    let answers = outcomes.iter().map(|outcome| outcome.seconds).collect();
    vec![("a turn".to_owned(), curve(turns)), ("an answer".to_owned(), curve(answers))]
}

fn undrawn(error: impl std::fmt::Display) -> Error {
    Error::internal(format!("a plot of the report: {error}"))
}

fn lines(title: &str, x: &str, y: &str, series: &[Series]) -> Result<String> {
    let points = || series.iter().flat_map(|(_, points)| points);
    let most = |values: &mut dyn Iterator<Item = f64>| values.fold(0.0, f64::max).max(1e-3) * 1.05;
    let (right, top) = (most(&mut points().map(|point| point.0)), most(&mut points().map(|point| point.1)));
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        let mut chart = ChartBuilder::on(&root)
            .caption(title, ("sans-serif", 16))
            .margin(8)
            .x_label_area_size(38)
            .y_label_area_size(56)
            .build_cartesian_2d(0.0..right, 0.0..top)
            .map_err(undrawn)?;
        chart.configure_mesh().x_desc(x).y_desc(y).light_line_style(WHITE).draw().map_err(undrawn)?;
        for ((name, points), color) in series.iter().zip(COLORS) {
            let line = LineSeries::new(points.iter().copied(), color.stroke_width(2));
            chart
                .draw_series(line)
                .map_err(undrawn)?
                .label(name)
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], color.stroke_width(2)));
        }
        if series.len() > 1 {
            let labels = &mut chart.configure_series_labels();
            labels.position(SeriesLabelPosition::UpperLeft).background_style(WHITE).border_style(BLACK);
            labels.draw().map_err(undrawn)?;
        }
        root.present().map_err(undrawn)?;
    }
    Ok(svg)
}

/// F1 of each category with its 95 % interval.
fn categories(outcomes: &[QuestionOutcome], seed: u64) -> Result<String> {
    let mut by_category: BTreeMap<&str, Vec<[f64; 1]>> = BTreeMap::new();
    for own in outcomes {
        by_category.entry(&own.category).or_default().push([own.scores.f1]);
    }
    let names: Vec<&str> = by_category.keys().copied().collect();
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        let mut chart = ChartBuilder::on(&root)
            .caption("F1 by category, with 95 % intervals", ("sans-serif", 16))
            .margin(8)
            .x_label_area_size(38)
            .y_label_area_size(56)
            .build_cartesian_2d(-0.5..names.len() as f64 - 0.5, 0.0..1.0)
            .map_err(undrawn)?;
        let name = |place: &f64| {
            let is_whole = (place - place.round()).abs() < 1e-9;
            names
                .get(place.round() as usize)
                .filter(|_| is_whole)
                .map_or_else(String::new, |name| (*name).to_owned())
        };
        chart
            .configure_mesh()
            .disable_x_mesh()
            .x_labels(2 * names.len() + 1)
            .x_label_formatter(&name)
            .y_desc("F1")
            .light_line_style(WHITE)
            .draw()
            .map_err(undrawn)?;
        for (place, scores) in by_category.values().enumerate() {
            let place = place as f64;
            let mean = scores.iter().map(|[f1]| f1).sum::<f64>() / scores.len() as f64;
            let [[low, high]] = bootstrap::intervals(scores, seed);
            let bar = Rectangle::new([(place - 0.3, 0.0), (place + 0.3, mean)], COLORS[0].mix(0.5).filled());
            chart.draw_series([bar]).map_err(undrawn)?;
            let bounds = PathElement::new([(place, low), (place, high)], BLACK.stroke_width(2));
            chart.draw_series([bounds]).map_err(undrawn)?;
        }
        root.present().map_err(undrawn)?;
    }
    Ok(svg)
}

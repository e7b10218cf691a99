//! Charts of the last minutes as SVG.
//!
//! A chart has no colors of its own: series, lines and labels have the colors [`SERIES`], [`GRID`]
//! and [`TEXT`] as names, which the style sheet replaces by those of the light or dark theme.

use plotters::backend::SVGBackend;
use plotters::chart::ChartBuilder;
use plotters::drawing::{DrawingAreaErrorKind, IntoDrawingArea};
use plotters::series::{AreaSeries, LineSeries};
use plotters::style::{Color, IntoFont, RGBColor, ShapeStyle, TRANSPARENT, TextStyle};

use super::samples::{Point, SPAN};
use crate::figures::amount;

/// Size of a chart in its own units; the page scales it.
const SIZE: (u32, u32) = (440, 150);
/// Most series of a chart.
pub(super) const MAX_SERIES: usize = 6;
/// Names of the series in the style sheet.
const SERIES: [RGBColor; MAX_SERIES] = [
    RGBColor(0, 0, 1),
    RGBColor(0, 0, 2),
    RGBColor(0, 0, 3),
    RGBColor(0, 0, 4),
    RGBColor(0, 0, 5),
    RGBColor(0, 0, 6),
];
/// Name of the lines behind the series.
const GRID: RGBColor = RGBColor(0, 0, 16);
/// Name of the labels.
const TEXT: RGBColor = RGBColor(0, 0, 32);
/// Size of the labels, in pixels. The backend makes them smaller by this factor.
const FONT: f64 = 11.0 * 1.24;

/// Returns a chart of at most [`MAX_SERIES`] series; empty if it cannot be drawn. The area below a
/// single series is filled.
pub(super) fn svg(series: &[&[Point]]) -> String {
    let mut text = String::with_capacity(8 << 10);
    match draw(series, &mut text) {
        Ok(()) => text,
        Err(_) => String::new(),
    }
}

/// Returns a round number that is not below any value.
fn ceiling(series: &[&[Point]]) -> f64 {
    let values = series.iter().flat_map(|points| points.iter());
    let most = values.map(|point| point.value).fold(1.0, f64::max);
    let unit = 10_f64.powf(most.log10().floor());
    let steps = [1.0, 2.0, 4.0, 5.0, 8.0, 10.0];
    let fits = steps
        .iter()
        .map(|step| step * unit)
        .find(|top| *top >= most);
    fits.unwrap_or(most)
}

fn draw(
    series: &[&[Point]],
    text: &mut String,
) -> Result<(), DrawingAreaErrorKind<std::io::Error>> {
    let area = SVGBackend::with_string(text, SIZE).into_drawing_area();
    let minutes = SPAN.as_secs_f64() / 60.0;
    let mut chart = ChartBuilder::on(&area)
        .margin_top(8)
        .margin_right(20)
        .x_label_area_size(20)
        .y_label_area_size(48)
        .build_cartesian_2d(-minutes..0.0, 0.0..ceiling(series))?;
    let label = TextStyle::from(("sans-serif", FONT).into_font()).color(&TEXT);
    chart
        .configure_mesh()
        .disable_x_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(GRID)
        .axis_style(GRID)
        .x_labels(4)
        .y_labels(5)
        .label_style(label)
        .x_label_formatter(&|minutes| match *minutes > -0.5 {
            true => "now".to_owned(),
            false => format!("{minutes:.0} min"),
        })
        .y_label_formatter(&|value| amount(*value))
        .draw()?;
    for (points, color) in series.iter().zip(SERIES) {
        let points = points
            .iter()
            .map(|point| (-point.ago / 60.0, point.value))
            .filter(|(time, _)| *time >= -minutes);
        if series.len() == 1 {
            let area = AreaSeries::new(points.clone(), 0.0, color.mix(0.16));
            chart.draw_series(area)?;
        }
        let line = ShapeStyle::from(&color).stroke_width(2);
        chart.draw_series(LineSeries::new(points, line))?;
    }
    drop(chart);
    area.present()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn points(values: &[f64]) -> Vec<Point> {
        let points = values.iter().enumerate();
        points
            .map(|(n, value)| Point {
                ago: 30.0 * n as f64,
                value: *value,
            })
            .collect()
    }

    #[test]
    fn a_chart_has_no_style_of_its_own_and_names_its_series() {
        let (one, other) = (points(&[1.0, 900.0, 30.0]), points(&[0.0, 5.0, 2.0]));
        let chart = svg(&[&one, &other]);
        assert!(
            chart.starts_with("<svg ") && chart.ends_with("</svg>\n"),
            "{chart}"
        );
        assert!(
            !chart.contains("style="),
            "the policy of the page forbids it"
        );
        for name in [
            "stroke=\"#000001\"",
            "stroke=\"#000002\"",
            "fill=\"#000020\"",
        ] {
            assert!(chart.contains(name), "{name} in {chart}");
        }
        assert!(!chart.contains("<polygon"), "{chart}");
        assert!(chart.contains(">\nnow\n</text>"), "{chart}");
        assert!(svg(&[&one]).contains("<polygon"));
    }

    #[test]
    fn nothing_and_extreme_values_are_drawn() {
        for values in [&[][..], &[0.0], &[1e-9, 0.0], &[1e18, 1.0]] {
            let points = points(values);
            let chart = svg(&[&points]);
            assert!(chart.ends_with("</svg>\n"), "{values:?}");
        }
        assert_eq!(ceiling(&[&points(&[43.0])]), 50.0);
        assert_eq!(ceiling(&[&points(&[0.0])]), 1.0);
        assert_eq!(ceiling(&[&points(&[1_000.0])]), 1_000.0);
    }
}

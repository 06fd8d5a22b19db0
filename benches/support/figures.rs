//! Quantiles, and the tables and charts that the documentation shows.

use std::time::Duration;

/// Nearest rank: with fewer than 100 values the p99 is the maximum.
pub fn quantile(values: &[Duration], q: f64) -> Duration {
    let mut sorted = values.to_vec();
    sorted.sort();
    let rank = (q * sorted.len() as f64).ceil() as usize;
    sorted[rank.clamp(1, sorted.len()) - 1]
}

/// In milliseconds, with one digit.
pub fn ms(value: Duration) -> f64 {
    (value.as_secs_f64() * 10_000.0).round() / 10.0
}

/// p50, p99 and the largest, as text.
pub fn spread(values: &[Duration]) -> String {
    let [a, b, c] = [0.5, 0.99, 1.0].map(|q| ms(quantile(values, q)));
    format!("{a} / {b} / {c} ms")
}

/// One bar: its name, and its value.
pub type Bar<'a> = (&'a str, f64);

/// Draws bars of one unit, where shorter is better, to `docs/charts/NAME.svg`. Our bar comes first and is highlighted.
pub fn chart(name: &str, title: &str, bars: &[Bar<'_>]) {
    use plotters::prelude::*;

    const WIDTH: u32 = 640;
    const ROW: i32 = 34;
    let file = format!("{}/docs/charts/{name}.svg", env!("CARGO_MANIFEST_DIR"));
    std::fs::create_dir_all(std::path::Path::new(&file).parent().unwrap()).unwrap();
    let height = ROW.unsigned_abs() * (bars.len() as u32 + 1);
    let area = SVGBackend::new(&file, (WIDTH, height)).into_drawing_area();
    area.fill(&WHITE).unwrap();
    let text = |size: i32| ("sans-serif", size).into_font().color(&BLACK);
    area.draw(&Text::new(title.to_owned(), (10, 10), text(16))).unwrap();
    let most = bars.iter().map(|b| b.1).fold(f64::MIN_POSITIVE, f64::max);
    for (row, (label, value)) in (1..).zip(bars) {
        let top = row * ROW;
        let end = 150 + (value / most * 380.0) as i32;
        let color = if row == 1 { RGBColor(0, 105, 92) } else { RGBColor(176, 190, 197) };
        area.draw(&Text::new((*label).to_owned(), (10, top + 7), text(14))).unwrap();
        area.draw(&Rectangle::new([(150, top), (end.max(152), top + 24)], color.filled())).unwrap();
        area.draw(&Text::new(format!("{value}"), (end + 8, top + 7), text(14))).unwrap();
    }
    area.present().unwrap();
}

//! Pictures as files.

use std::error::Error;
use std::path::Path;

use plotters::coord::Shift;
use plotters::prelude::*;

use crate::exit::Exit;
use crate::failure::Failure;

/// What is drawn on.
pub(crate) type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// Draws a picture of so many pixels into a file.
pub(crate) fn write(
    file: &Path,
    size: (u32, u32),
    draw: impl FnOnce(&Area<'_>) -> Result<(), Box<dyn Error>>,
) -> Result<(), Failure> {
    let svg = drawn(size, draw)
        .map_err(|error| Failure::message(Exit::Failed, format!("failed to draw: {error}")))?;
    std::fs::write(file, svg).map_err(|error| {
        Failure::message(Exit::Usage, format!("--plot: failed to write `{}`: {error}", file.display()))
    })
}

fn drawn(
    size: (u32, u32),
    draw: impl FnOnce(&Area<'_>) -> Result<(), Box<dyn Error>>,
) -> Result<String, Box<dyn Error>> {
    let mut text = String::new();
    {
        let root = SVGBackend::with_string(&mut text, size).into_drawing_area();
        root.fill(&WHITE).map_err(in_words)?;
        draw(&root)?;
        root.present().map_err(in_words)?;
    }
    Ok(text)
}

/// Errors of the drawing borrow the picture; their words do not.
pub(crate) fn in_words(error: impl std::fmt::Display) -> Box<dyn Error> {
    error.to_string().into()
}

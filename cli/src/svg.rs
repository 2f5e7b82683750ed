//! Pictures, as files and as parts of a page.

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
    let on_white = |root: &Area<'_>| {
        root.fill(&WHITE).map_err(in_words)?;
        draw(root)
    };
    let svg = inline(size, on_white)?;
    std::fs::write(file, svg).map_err(|error| {
        Failure::message(Exit::Usage, format!("--plot: failed to write `{}`: {error}", file.display()))
    })
}

/// Draws a picture of so many pixels as a part of a page, on whose ground it stands.
pub(crate) fn inline(
    size: (u32, u32),
    draw: impl FnOnce(&Area<'_>) -> Result<(), Box<dyn Error>>,
) -> Result<String, Failure> {
    drawn(size, draw).map_err(|error| Failure::message(Exit::Failed, format!("failed to draw: {error}")))
}

fn drawn(
    size: (u32, u32),
    draw: impl FnOnce(&Area<'_>) -> Result<(), Box<dyn Error>>,
) -> Result<String, Box<dyn Error>> {
    let mut text = String::new();
    {
        let root = SVGBackend::with_string(&mut text, size).into_drawing_area();
        draw(&root)?;
        root.present().map_err(in_words)?;
    }
    Ok(text)
}

/// Errors of the drawing borrow the picture; their words do not.
pub(crate) fn in_words(error: impl std::fmt::Display) -> Box<dyn Error> {
    error.to_string().into()
}

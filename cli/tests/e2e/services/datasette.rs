//! Datasette over an SQLite file of some 50 MiB: cheap look-ups by key, and dear sums over rows that lie everywhere in
//! the file. Each instance has its own copy of it, as a replica would.

use std::fs;
use std::path::Path;

use super::{Service, run_python};
use crate::http::Request;

/// Rows, of about 500 bytes each.
const ROWS: usize = 96_000;

/// Groups of rows that have nothing else in common: a sum over one reads some 320 pages.
const BUCKETS: usize = 300;

const MAKE: &str = "\
import random, sqlite3, sys
random.seed(1)
db = sqlite3.connect('shop.db')
db.execute('create table items (id integer primary key, bucket integer, price integer, note text)')
rows = ((n, random.randrange(int(sys.argv[2])), random.randrange(1000), f'{random.getrandbits(1900):x}') for n in range(int(sys.argv[1])))
db.executemany('insert into items values (?, ?, ?, ?)', rows)
db.execute('create index by_bucket on items (bucket)')
db.commit()
";

pub(crate) const SERVICE: &Service = &Service {
    name: "datasette",
    script: "mkdir -p data/$FORESHADOW_INSTANCE && cp -n shop.db data/$FORESHADOW_INSTANCE/ \
             && sync -f data && exec @PYTHON@/datasette serve data/$FORESHADOW_INSTANCE/shop.db -p @PORT@",
    ready: "/-/versions.json",
    cpu: ["500m", "750m"],
    memory: ["256Mi", "384Mi"],
    scarce_cpu: "250m",
    storage: &["data"],
    prepare,
    requests,
    rate: 40,
    faults: &["cpu", "memory", "network", "latency", "errors", "overload"],
};

fn prepare(folder: &Path) {
    fs::create_dir_all(folder.join("data")).unwrap();
    run_python(folder, &["-c", MAKE, &ROWS.to_string(), &BUCKETS.to_string()], &[]);
}

fn requests() -> Vec<Request> {
    (0..400)
        .map(|number| {
            let id = number * 37_813 % ROWS;
            if number % 2 == 0 {
                let bucket = number * 7 % BUCKETS;
                Request::get(format!(
                    "/shop.json?sql=select+sum(price),sum(length(note))+from+items+where+bucket={bucket}&_shape=array"
                ))
            } else {
                Request::get(format!("/shop/items/{id}.json?_shape=array"))
            }
        })
        .collect()
}

//! httpbin under gunicorn: pure Python, a few milliseconds a request, no files.

use super::Service;
use crate::http::Request;

pub(crate) const SERVICE: &Service = &Service {
    name: "httpbin",
    script: "exec @PYTHON@/gunicorn --threads 4 --keep-alive 30 -b 127.0.0.1:@PORT@ httpbin:app",
    ready: "/status/200",
    cpu: ["400m", "600m"],
    memory: ["256Mi", "384Mi"],
    scarce_cpu: "200m",
    storage: &[],
    prepare: |_| {},
    requests: || ["/get", "/get?a=1", "/headers", "/uuid", "/html"].map(Request::get).to_vec(),
    rate: 50,
    faults: &["cpu", "network", "latency", "errors", "overload"],
};

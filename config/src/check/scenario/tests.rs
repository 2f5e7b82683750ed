use std::path::Path;

use foreshadow_model::{ActionType, Mode};

use crate::parse_scenario;

#[test]
fn a_story_has_the_sections_of_a_configuration_and_says_where_it_is_wrong() {
    const STORY: &str = "story: x\nlasts: 10m\nload: { constant: 10/s }\n";
    let parse = |rest: &str| parse_scenario(&format!("{STORY}{rest}"), Path::new("/srv"));
    let (scenario, maintenance) = parse("action: { type: vertical }\nresources: { cpu: 500m }\n").unwrap();
    assert_eq!((scenario.policy.mode, scenario.policy.action.kind), (Mode::Act, ActionType::Vertical));
    assert!((scenario.lives, scenario.nodes.len(), maintenance.len()) == (2, 2, 0) && scenario.seed == 1);
    for (rest, line, message) in [
        ("faults: [{ at: 1m }]\n", 4, "expected one kind of fault"),
        ("faults: [{ at: 1m, surge: 200%, operator: pause }]\n", 4, "expected one kind of fault"),
        (
            "faults:\n  - { at: 1m, errors: { live: live-3, share: 5% } }\n",
            5,
            "there is no `live-3` at the start: `lives` is 2",
        ),
        ("faults: [{ at: 1m, slowNode: { node: z, to: 150% } }]\n", 4, "no node is named `z`"),
        ("expect: [{ from: 2m, to: 1m, says: x }]\n", 4, "expected `from` before `to`"),
        ("expect: [{ says: x, never: y }]\n", 4, "expected one of `says` and `never`, got both"),
        ("service: { startUp: [2m, 1m] }\n", 4, "expected the shorter time first"),
        ("starts: yesterday\n", 4, "expected an instant such as `2026-11-28T21:00:00Z`, got `yesterday`"),
    ] {
        let error = parse(rest).expect_err(rest);
        assert_eq!((error.line(), error.message()), (line, message), "{error}");
    }
    let both =
        STORY.replace("constant: 10/s", "constant: 10/s, daily: { mean: 1/s, swing: 5%, peak: \"14:00\" }");
    assert_eq!(
        parse_scenario(&both, Path::new("/")).unwrap_err().message(),
        "expected one of `constant`, `daily` and `trace`"
    );
}

use super::*;
use crate::datasets::synthetic::names::{kept_names, words};

const HERS: &str = "\
@ Lives in Lyon
@ Sister Kalinda is a nurse
. Ana: where to?
> Ines: Kalinda and I moved to Brumath, on the 4th floor, number 34. She quit nursing
~ Lives in Brumath ~ Lives in Lyon ~ Lives in Brumath
- Sister Kalinda is no longer a nurse ~ Sister Kalinda is a nurse
+ House number is 34
? Where do I live? ~ Lives in Brumath ~ Brumath
";

#[test]
fn every_file_is_read() {
    let all = load().unwrap();
    assert!(all.len() >= 20, "{}", all.len());
}

#[test]
fn a_situation_is_read_line_by_line() {
    let [own] = &parse("a.txt", HERS).unwrap()[..] else { panic!("one") };
    assert_eq!(own.memories, ["Lives in Lyon", "Sister Kalinda is a nurse"]);
    assert_eq!(own.context, [Said { speaker: "Ana".into(), text: "where to?".into() }]);
    assert_eq!(own.turn.speaker, "Ines");
    assert_eq!(own.facts[0].decided, Decided::Update { target: 0, text: "Lives in Brumath".into() });
    assert_eq!(own.facts[1].decided, Decided::Delete { target: 1 });
    assert_eq!(own.facts[2], Statement { fact: "House number is 34".into(), decided: Decided::Add });
    assert_eq!(own.questions[0].answer, Some((vec![0], "Brumath".into())));
    assert_eq!(own.bank(0), [Some(("Lives in Lyon", None)), Some(("Sister Kalinda is a nurse", None))]);
    assert_eq!(
        own.bank(3),
        [Some(("Lives in Brumath", Some(0))), None, Some(("House number is 34", Some(2)))]
    );
}

#[test]
fn a_question_may_need_several_memories() {
    let text = "@ Plays chess\n@ Lives in Lyon\n> user: hey\n+ Plays golf\n? What do I play? ~ Plays chess ~ Plays golf ~ chess and golf\n";
    let all = parse("f.txt", text).unwrap();
    assert_eq!(all[0].questions[0].answer, Some((vec![0, 2], "chess and golf".into())));
}

#[test]
fn what_is_wrong_is_named_with_its_file_and_line() {
    for (bad, line, why) in [
        ("@ Has a dog", 1, "without a turn"),
        ("> user Hello", 1, "speaker"),
        ("> : Hello", 1, "empty"),
        ("> user: Hello\n> user: Hello", 2, "before the turn"),
        ("@ Has a dog\n+ Has a cat\n> user: Hello", 2, "no turn"),
        ("@ Has a dog\n@ Has a dog\n> user: Hello", 2, "twice"),
        (". A: a\n. A: b\n. A: c\n> user: Hello", 3, "context"),
        ("@ 1\n@ 2\n@ 3\n@ 4\n@ 5\n@ 6\n@ 7\n> user: Hello", 7, "more than 6"),
        ("@ Has a dog\n> user: Hello\n- No dog ~ Has a Dog", 3, "not a memory"),
        ("@ Has a dog\n> user: Hello\n- No dog ~ Has a dog\n= A dog ~ Has a dog", 4, "not a memory"),
        ("@ Has a dog\n> user: Hello\n~ Has a cat ~ Has a dog", 3, "parts"),
        ("> user: Hello\n+ Has a dog ~ Has a dog", 2, "parts"),
        ("> user: Hello\n? Who? ~ Has a dog ~ dog", 2, "after the turn"),
        ("> user: Hello\n? Who? ~ ~ me", 2, "unknown"),
        ("@ Has a dog\n> user: Hello\n? Who? ~ Has a dog ~ ~ dog", 3, "after the turn"),
        ("> user: Hello\n? Who? ~ me", 2, "question"),
        ("> user: Hello\n? Who? ~ ~ unknown\n+ Has a dog", 3, "behind the question"),
        ("> user: Hello\n* Has a dog", 2, "unknown kind"),
        ("> user: Hello\n+", 2, "nothing behind"),
        ("> user: Hel\u{7}lo", 1, "control"),
        ("> user: Hi\n\n> user: hi", 3, "stands there twice"),
    ] {
        let error = parse("b.txt", &format!("> user: Fine\n\n{bad}\n")).unwrap_err();
        let message = error.message();
        assert!(
            message.starts_with(&format!("b.txt, line {}: ", line + 2)) && message.contains(why),
            "{message}"
        );
    }
    let error = parse("b.txt", "> a\n\n> user: Fine\n\n> b").unwrap_err();
    assert!(error.message().contains("line 1") && error.message().contains("line 5"), "{error}");
}

/// Enough lines for a name to be known as one.
fn variants(copies: usize) -> Vec<Situation> {
    let all = parse("c.txt", HERS).unwrap();
    let writer = Writer::new(5, &all);
    (0..copies).map(|copy| writer.variant(&all[0], copy).unwrap()).collect()
}

#[test]
fn the_first_variant_is_as_written_and_each_is_always_the_same() {
    assert_eq!(variants(1), parse("c.txt", HERS).unwrap());
    assert_eq!(variants(8), variants(8));
}

#[test]
fn a_name_and_a_number_change_wherever_they_stand() {
    let all = variants(40);
    let after = |text: &str, start: &str| text.strip_prefix(start).map(str::to_owned).unwrap();
    let (mut towns, mut sisters, mut numbers) = (0, 0, 0);
    for own in &all {
        let town = after(&own.facts[0].fact, "Lives in ");
        let sister = own.memories[1].split(' ').nth(1).unwrap();
        let number = after(&own.facts[2].fact, "House number is ");
        for name in [&town[..], sister, &number] {
            assert!(words(&own.turn.text).any(|word| word == name), "{name}: {}", own.turn.text);
        }
        assert_eq!(own.facts[0].decided, Decided::Update { target: 0, text: format!("Lives in {town}") });
        assert_eq!(own.facts[1].fact, format!("Sister {sister} is no longer a nurse"));
        assert_eq!(own.questions[0].answer, Some((vec![0], town.clone())));
        assert_eq!((&own.turn.speaker[..], number.len()), ("Ines", 2));
        towns += usize::from(town != "Brumath");
        sisters += usize::from(sister != "Kalinda");
        numbers += usize::from(number != "34");
    }
    assert!(towns > 20 && towns < 40 && sisters > 20 && numbers > 5, "{towns} {sisters} {numbers}");
}

#[test]
fn what_is_no_name_or_has_other_forms_stays() {
    let text = "\
@ Likes Brumath
> user: In July my Brumathian friend Rosso and I, born 1984, met at 18:30 on 12 May
+ Met a friend in July
";
    let all = parse("d.txt", text).unwrap();
    let writer = Writer::new(1, &all);
    for copy in 0..20 {
        let own = writer.variant(&all[0], copy).unwrap();
        assert_eq!(own.memories, ["Likes Brumath"]);
        for part in ["July", "Brumathian", "1984", "18:30", "12 May"] {
            assert!(own.turn.text.contains(part), "{}", own.turn.text);
        }
    }
}

#[test]
fn names_of_the_test_split_give_way_in_every_variant() {
    let names = ["Alice", "Amelia", "Anna", "Astrid", "Bianca", "Chloe", "Clara", "Diana", "Elena", "Emma"];
    let kept = names.into_iter().find(|name| !kept_names(&format!("my {name}!")).is_empty()).unwrap();
    let text = format!(
        "@ Has a sister named {kept}\n> {kept}: My sister {kept} called\n? Who is my sister? ~ Has a sister named {kept} ~ {kept}\n\n> user: {kept} is not known to be a name here"
    );
    let all = parse("e.txt", &text).unwrap();
    let writer = Writer::new(1, &all);
    for copy in 0..10 {
        let own = writer.variant(&all[0], copy).unwrap();
        assert!(own.texts().all(|text| !text.contains(kept)), "{own:?}");
        let name = own.memories[0].strip_prefix("Has a sister named ").unwrap();
        assert_eq!(own.questions[0].answer.clone(), Some((vec![0], name.to_owned())));
    }
}

/// Prints variants to read: `cargo test --release --lib freeform::tests::variants_make_sense -- --ignored --nocapture`.
#[test]
#[ignore = "for human eyes"]
#[expect(clippy::print_stdout, reason = "that is its purpose")]
fn variants_make_sense() {
    let all = load().unwrap();
    let writer = Writer::new(17, &all);
    let left_out = all.iter().filter(|own| writer.variant(own, 0).is_none()).count();
    println!("{left_out} of {} are left out", all.len());
    for own in all.iter().step_by(all.len().div_ceil(40)) {
        for copy in 0..3 {
            let Some(variant) = writer.variant(own, copy) else { continue };
            println!("\n== {copy}");
            println!("{}", variant.texts().collect::<Vec<_>>().join("\n"));
        }
    }
}

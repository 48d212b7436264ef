use super::*;
use crate::datasets::freeform::parse;
use crate::datasets::synthetic::names::kept_names;
use crate::training::SftConfig;

fn config() -> DataConfig {
    let text = include_str!("../../../../configs/nano.toml");
    let freeform = Some(FreeformConfig { share: 0.3, answer_share: None, copies: 3 });
    DataConfig { freeform, ..SftConfig::parse(text).unwrap().data }
}

/// The cases of one situation as written, without memories of others and in retrieval's order.
fn made(text: &str) -> Vec<Case> {
    let mut config = config();
    (config.shuffled_candidates, config.candidates_per_speaker) = (0.0, 3);
    let all = parse("a.txt", text).unwrap();
    let writer = Writer::new(config.seed, &all);
    let own = writer.variant(&all[0], 0).unwrap();
    situation_cases(&config, &own, &Others::new(std::iter::empty()), 0).into_iter().flatten().collect()
}

fn kinds(cases: &[Case]) -> Vec<&str> {
    cases.iter().map(|case| &case.kind[..]).collect()
}

#[test]
fn a_fact_is_extracted_added_and_asked_for() {
    let cases = made(
        ". Ana: anything new?\n> Chidi: Went to Lisbon last week, with a friend\n+ Went to Lisbon last week\n? Where did I go? ~ Went to Lisbon last week ~ Lisbon\n",
    );
    assert_eq!(kinds(&cases), ["free/some", "free/ADD", "free/known"]);
    assert_eq!(cases[0].completion, r#"{"facts":["Went to Lisbon last week"]}"#);
    let prompt = &cases[0].messages[1].content;
    assert!(
        prompt.contains("anything new?") && prompt.contains("Chidi: Went to Lisbon last week, with"),
        "{prompt}"
    );
    // The manager reads the date, and writes it down.
    let text = cases[1].completion.strip_prefix(r#"{"event":"ADD","text":""#).unwrap();
    assert!(text.starts_with("Went to Lisbon in the week of "), "{text}");
    assert!(cases[1].messages[1].content.contains(text.trim_end_matches("\"}")));
    assert_eq!(cases[2].completion, r#"{"memories":["0"],"answer":" Lisbon"}"#);
    assert!(cases[2].messages[1].content.contains("Chidi"));
}

#[test]
fn a_memory_is_changed_ended_and_repeated() {
    let text = "\
@ Lives in Lyon
@ Drives an old van
@ Is fond of tea
> Ines: Brest it is, the van's gone, and tea is still my thing
~ Lives in Brest ~ Lives in Lyon ~ Lives in Brest
- No longer drives a van ~ Drives an old van
= Likes tea ~ Is fond of tea
? What do I drive? ~ ~ unknown
";
    let cases = made(text);
    assert_eq!(kinds(&cases), ["free/some", "free/UPDATE", "free/DELETE", "free/NONE", "free/unknown"]);
    // The place of a memory among those that are shown.
    let id = |case: &Case, memory: &str| {
        let Grammar::Decision { shown } = case.grammar else { panic!("{case:?}") };
        let lines: Vec<&str> = case.messages[1].content.lines().filter(|line| line.contains(": ")).collect();
        assert!(lines.len() >= shown, "{lines:?}");
        lines.iter().position(|line| line.contains(memory)).unwrap()
    };
    let place = id(&cases[1], "Lives in Lyon");
    assert_eq!(
        cases[1].completion,
        format!(r#"{{"event":"UPDATE","id":"{place}","text":"Lives in Brest"}}"#)
    );
    // The second fact meets what the first one did, and the third no van.
    let second = &cases[2].messages[1].content;
    assert!(second.contains("Lives in Brest") && !second.contains("Lyon"), "{second}");
    let place = id(&cases[2], "Drives an old van");
    assert_eq!(cases[2].completion, format!(r#"{{"event":"DELETE","id":"{place}"}}"#));
    assert!(!cases[3].messages[1].content.contains("van"));
    assert_eq!(cases[3].completion, r#"{"event":"NONE"}"#);
    assert_eq!(cases[4].completion, r#"{"memories":[],"answer":" I don't know"}"#);
}

#[test]
fn questions_to_one_bank_share_their_memories() {
    let text = "\
@ Has a dog named Rex
@ Plays the cello
@ Sister lives in Graz
> user: hey, quick question
? What's my dog called? ~ Has a dog named Rex ~ Rex
? which instrument do I play ~ Plays the cello ~ the cello
? Do I have a brother? ~ ~ unknown
? Dog and cello? ~ Has a dog named Rex ~ Plays the cello ~ yes
";
    let cases = made(text);
    let questions = ["free/known", "free/known", "free/unknown", "free/known"];
    assert_eq!(kinds(&cases), [&["free/none"][..], &questions].concat());
    let memories = |case: &Case| {
        let (memories, question) = case.messages[1].content.rsplit_once("> ").unwrap();
        (memories.to_owned(), question.to_owned())
    };
    let [first, second, third] = [1, 2, 3].map(|place: usize| memories(&cases[place]));
    assert!(first.0 == second.0 && second.0 == third.0, "{first:?} {second:?} {third:?}");
    assert_eq!(second.1, "which instrument do I play");
    let place = first.0.lines().position(|line| line.contains("cello")).unwrap() - 1;
    assert_eq!(cases[2].completion, format!(r#"{{"memories":["{place}"],"answer":" the cello"}}"#));
    assert_eq!(cases[3].completion, r#"{"memories":[],"answer":" I don't know"}"#);
    let dog = first.0.lines().position(|line| line.contains("dog named")).unwrap() - 1;
    let (low, high) = (place.min(dog), place.max(dog));
    assert_eq!(cases[4].completion, format!(r#"{{"memories":["{low}","{high}"],"answer":" yes"}}"#));
}

#[test]
fn the_extractor_is_shown_the_bank() {
    let mut config = config();
    config.extractor_candidates = 2;
    let text = "@ Has a dog named Rex\n@ Plays the cello\n@ Likes tea\n> user: Rex barked\n";
    let all = parse("a.txt", text).unwrap();
    let writer = Writer::new(config.seed, &all);
    let own = writer.variant(&all[0], 0).unwrap();
    let mut most = 0;
    for copy in 0..20 {
        let groups = situation_cases(&config, &own, &Others::new(std::iter::empty()), copy);
        let prompt = &groups[0][0].messages[1].content;
        let shown: Vec<&str> = prompt.lines().filter(|line| line.starts_with("- ")).collect();
        // The best last; a name of the test split has become another.
        assert!(shown.len() <= 2, "{prompt}");
        assert!(shown.len() < 2 || shown[1].starts_with("- Has a dog named "), "{prompt}");
        most = most.max(shown.len());
    }
    assert_eq!(most, 2);
}

#[test]
fn what_a_memory_says_that_is_shown_is_no_news() {
    let mut config = config();
    config.extractor_candidates = 2;
    let text = "@ Likes tea\n@ Plays the cello\n> user: tea for me, as ever, and I bought an oboe\n\
        = Likes tea ~ Likes tea\n+ Has an oboe\n";
    let all = parse("a.txt", text).unwrap();
    let own = Writer::new(config.seed, &all).variant(&all[0], 0).unwrap();
    let mut alone = 0;
    for copy in 0..20 {
        let mut made = |repeats: bool| {
            config.repeats = repeats;
            let groups = situation_cases(&config, &own, &Others::new(std::iter::empty()), copy);
            (groups[0][0].messages[1].content.clone(), groups[0][0].completion.clone())
        };
        let all = r#"{"facts":["Likes tea","Has an oboe"]}"#;
        let ((prompt, news), with) = (made(false), made(true));
        assert_eq!((&with.0, &*with.1), (&prompt, all));
        let is_shown = prompt.lines().any(|line| line.starts_with("- ") && line.contains("Likes tea"));
        alone += usize::from(is_shown);
        assert_eq!(news, if is_shown { r#"{"facts":["Has an oboe"]}"# } else { all }, "{prompt}");
    }
    assert!((1..20).contains(&alone), "{alone}");
}

#[test]
fn nothing_is_extracted_from_talk_and_the_same_statement_asks_no_model() {
    let cases = made("> user: lovely weather\n");
    assert_eq!(kinds(&cases), ["free/none"]);
    assert_eq!(cases[0].completion, r#"{"facts":[]}"#);
    let cases = made("@ Likes tea\n> user: tea, as ever\n= Likes tea. ~ Likes tea\n");
    assert_eq!(kinds(&cases), ["free/some"]);
}

#[test]
fn banks_are_filled_up_with_what_contradicts_nothing() {
    let others = Others::new(
        ["Lives in Rome", "Has a dog named Bo", "Likes tea", "Has a cat named Tom"]
            .map(str::to_owned)
            .into_iter(),
    );
    let memory = |text: &str| gold("0".to_owned(), text, Timestamp::default(), "user");
    let bank = [memory("Lives in Lyon"), memory("Has a dog named Rex")];
    for seed in 0..30 {
        let mut random = Random::new(seed, &[]);
        let text = others.compatible(&bank, &mut random);
        assert!(text.is_none_or(|text| matches!(text, "Likes tea" | "Has a cat named Tom")), "{text:?}");
        // Where the dog's name is asked for, another dog's would be an answer.
        let text = others.beside(&bank, &["What is my dog's age?"], &mut random);
        assert!(text.is_none_or(|text| text == "Lives in Rome"), "{text:?}");
    }
}

#[test]
fn cases_are_the_same_every_time_and_name_nothing_of_the_test_split() {
    let config = config();
    let (made, again) = (cases(&config).unwrap(), cases(&config).unwrap());
    assert!(!made.written.is_empty() && made.varied.len() > made.written.len());
    assert!(made.written == again.written && made.varied == again.varied && made.held_out == again.held_out);
    for case in made.written.iter().chain(&made.varied).chain(&made.held_out).flatten() {
        assert!(case.source == Source::Freeform && case.kind.starts_with("free/"));
        let texts =
            case.messages[1..].iter().map(|message| &message.content[..]).chain([&case.completion[..]]);
        for text in texts {
            assert!(kept_names(text).is_empty(), "{:?}: {text}", kept_names(text));
        }
    }
    let without = DataConfig { freeform: None, ..config };
    assert!(cases(&without).unwrap().written.is_empty());
}

//! IndexedDB in a real browser: the contract, and what only a browser can get wrong.
#![cfg(target_arch = "wasm32")]

mod store_contract;

use indexed_db_futures::database::Database;
use indexed_db_futures::prelude::*;
use indexed_db_futures::transaction::TransactionMode;
use memory_r1::bank::Scope;
use memory_r1::error::ErrorCode;
use memory_r1::store::{IndexedDbStore, Store};
use store_contract::{at, batch, every_store_keeps_the_contract, journal, space, vector};
use wasm_bindgen_test::{wasm_bindgen_test, wasm_bindgen_test_configure};

wasm_bindgen_test_configure!(run_in_browser);

async fn fresh(name: &str) -> String {
    let name = format!("memory-r1 test: {name}");
    Database::delete_by_name(&name).unwrap().await.unwrap();
    name
}

#[wasm_bindgen_test]
async fn indexed_db_keeps_the_contract() {
    let name = fresh("contract").await;
    let open = || async { Box::new(IndexedDbStore::open(&name).await.unwrap()) as Box<dyn Store> };
    every_store_keeps_the_contract(open).await;
}

#[wasm_bindgen_test]
async fn an_erased_text_is_in_no_row() {
    let name = fresh("erasure").await;
    let scope = Scope::user("caroline");
    let store = IndexedDbStore::open(&name).await.unwrap();
    let mut kept = journal(&scope);
    let events = batch(&kept, &["Has a dog", "Secret Zebracorn"]);
    store.append(&scope, 0, &events).await.unwrap();
    kept.append(events).unwrap();
    assert!(rows(&name).await.contains("Zebracorn"));
    let id = kept.bank().memories().nth(1).unwrap().id.clone();
    store.rewrite(2, &kept.erase(&[id], at(5)).unwrap()).await.unwrap();
    let rows_left = rows(&name).await;
    assert!(!rows_left.contains("Zebracorn") && rows_left.contains("Has a dog"));
    store.remove(&scope).await.unwrap();
    assert_eq!(rows(&name).await, "");
}

#[wasm_bindgen_test]
async fn vectors_are_there_after_a_reload_and_gone_after_an_erasure() {
    let name = fresh("vectors").await;
    let scope = Scope::user("caroline");
    let store = IndexedDbStore::open(&name).await.unwrap();
    let mut kept = journal(&scope);
    let events = batch(&kept, &["Has a dog", "Secret Zebracorn"]);
    store.append(&scope, 0, &events).await.unwrap();
    kept.append(events).unwrap();
    let own = [vector("Has a dog", &[1.0, 0.5]), vector("Secret Zebracorn", &[0.25, -2.0])];
    store.keep_vectors(&kept, &space("a", 2), &own).await.unwrap();
    store.close().await.unwrap();
    let store = IndexedDbStore::open(&name).await.unwrap();
    assert_eq!(store.vectors(&scope, &space("a", 2)).await.unwrap().len(), 2);
    assert_eq!(count(&name, "vectors").await, 2);
    let id = kept.bank().memories().nth(1).unwrap().id.clone();
    store.rewrite(2, &kept.erase(&[id], at(5)).unwrap()).await.unwrap();
    assert_eq!(store.vectors(&scope, &space("a", 2)).await.unwrap(), own[..1]);
    assert_eq!(count(&name, "vectors").await, 1);
    store.remove(&scope).await.unwrap();
    assert_eq!(count(&name, "vectors").await, 0);
}

#[wasm_bindgen_test]
async fn a_database_of_the_first_version_opens_and_keeps_vectors_from_then_on() {
    let name = fresh("first version").await;
    let first = Database::open(&name)
        .with_version(1u32)
        .with_on_upgrade_needed(|_, database| {
            database.create_object_store("journals").build()?;
            database.create_object_store("events").build()?;
            Ok(())
        })
        .await
        .unwrap();
    first.close();
    let scope = Scope::user("caroline");
    let store = IndexedDbStore::open(&name).await.unwrap();
    let mut kept = journal(&scope);
    let events = batch(&kept, &["Has a dog"]);
    store.append(&scope, 0, &events).await.unwrap();
    kept.append(events).unwrap();
    let own = [vector("Has a dog", &[1.0, 0.5])];
    store.keep_vectors(&kept, &space("a", 2), &own).await.unwrap();
    assert_eq!(store.vectors(&scope, &space("a", 2)).await.unwrap(), own);
}

/// How many rows an object store has.
async fn count(name: &str, store: &str) -> u32 {
    let database = Database::open(name).await.unwrap();
    let transaction = database.transaction(store).build().unwrap();
    let count = transaction.object_store(store).unwrap().count().primitive().unwrap().await.unwrap();
    drop(transaction);
    database.close();
    count
}

/// Every value of the raw database.
async fn rows(name: &str) -> String {
    let database = Database::open(name).await.unwrap();
    let mut all = String::new();
    for store in ["journals", "events"] {
        let transaction = database.transaction(store).build().unwrap();
        let rows = transaction.object_store(store).unwrap();
        for row in rows.get_all::<String>().primitive().unwrap().await.unwrap() {
            all.push_str(&row.unwrap());
        }
    }
    database.close();
    all
}

#[wasm_bindgen_test]
async fn a_database_of_a_newer_version_is_refused_with_a_sentence() {
    let name = fresh("newer").await;
    let newer = Database::open(&name).with_version(99u32).await.unwrap();
    newer.close();
    let error = IndexedDbStore::open(&name).await.map(|_| ()).unwrap_err();
    assert_eq!(error.code(), ErrorCode::StoreCorrupt);
    assert!(error.message().contains("newer version"), "{error}");
}

#[wasm_bindgen_test]
async fn a_tab_that_upgrades_takes_the_database_away_and_the_store_says_so() {
    let name = fresh("versionchange").await;
    let scope = Scope::user("caroline");
    let store = IndexedDbStore::open(&name).await.unwrap();
    let events = batch(&journal(&scope), &["Has a dog"]);
    store.append(&scope, 0, &events).await.unwrap();
    // Not blocked: the store closes as soon as it is asked to.
    let newer = Database::open(&name).with_version(3u32).await.unwrap();
    assert_eq!(store.load(&scope).await.unwrap_err().code(), ErrorCode::StoreBlocked);
    newer.close();
}

#[wasm_bindgen_test]
async fn an_empty_database_of_the_same_name_by_somebody_else_is_refused() {
    let name = fresh("foreign").await;
    let foreign = Database::open(&name)
        .with_version(1u32)
        .with_on_upgrade_needed(|_, database| database.create_object_store("recipes").build().map(|_| ()))
        .await
        .unwrap();
    foreign.close();
    let error = IndexedDbStore::open(&name).await.map(|_| ()).unwrap_err();
    assert_eq!(error.code(), ErrorCode::StoreCorrupt, "{error}");
    let foreign = Database::open(&name).await.unwrap();
    let stores: Vec<String> = foreign.object_store_names().collect();
    assert_eq!((foreign.version() as u32, stores), (1, vec!["recipes".to_owned()]));
    foreign.close();
}

#[wasm_bindgen_test]
async fn a_damaged_row_is_told_and_not_dropped() {
    let name = fresh("damage").await;
    let scope = Scope::user("caroline");
    let store = IndexedDbStore::open(&name).await.unwrap();
    store.append(&scope, 0, &batch(&journal(&scope), &["Has a dog", "Lives in Lyon"])).await.unwrap();
    let raw = Database::open(&name).await.unwrap();
    let transaction = raw.transaction("events").with_mode(TransactionMode::Readwrite).build().unwrap();
    let events = transaction.object_store("events").unwrap();
    events.clear().unwrap().await.unwrap();
    drop(events);
    transaction.commit().await.unwrap();
    raw.close();
    assert_eq!(store.load(&scope).await.unwrap_err().code(), ErrorCode::StoreCorrupt);
}

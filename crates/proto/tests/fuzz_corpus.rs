//! What the fuzzers in `fuzz/` have kept, through the same entry points, on any compiler.

use std::{fs, path::Path};

// There it is a crate, with a public face.
#[allow(unreachable_pub)]
#[path = "../../../fuzz/src/lib.rs"]
mod fuzz;

#[test]
fn every_entry_point_takes_its_corpus_and_what_is_cut_off_it() {
    for (name, run) in fuzz::ALL {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(name);
        let files = fs::read_dir(&folder).unwrap_or_else(|why| panic!("{}: {why}", folder.display()));
        let mut seen = 0;
        for file in files {
            let path = file.expect("the folder can be read").path();
            let data = fs::read(&path).expect("a corpus is files");
            println!("{}", path.display());
            run(&data);
            run(&data[..data.len() / 2]);
            seen += 1;
        }
        assert!(seen > 1, "{name} has a corpus");
    }
}

//! Writes the CustomResourceDefinitions into the folder that is named: `crdgen crds/yaml`.

use std::path::PathBuf;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = PathBuf::from(std::env::args().nth(1).ok_or("usage: crdgen FOLDER")?);
    std::fs::create_dir_all(&folder)?;
    for (file, yaml) in meshwright_api::definitions_yaml()? {
        std::fs::write(folder.join(file), yaml)?;
    }
    Ok(())
}

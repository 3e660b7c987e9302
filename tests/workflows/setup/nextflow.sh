#!/usr/bin/env bash
# Puts a Nextflow that runs offline into a folder, from Maven Central: nextflow.sh FOLDER
# Needs Java 17 and Maven. Does nothing when the folder holds the result of the same recipe.
set -euo pipefail
target=$(realpath -m "$1")
cd "$(dirname "$0")/nextflow"

recipe=$(find . -type f -not -path './target/*' | LC_ALL=C sort | xargs sha256sum | sha256sum | cut -d' ' -f1)
[ "$(cat "$target/recipe" 2>/dev/null)" != "$recipe" ] || exit 0

build=$(mktemp -d)
trap 'rm -rf "$build"' EXIT
cp -r pom.xml src "$build"
mvn --quiet --batch-mode --file "$build/pom.xml" package dependency:copy-dependencies \
    -DincludeScope=runtime "-DoutputDirectory=$build/lib"
cp "$build/target/nextflow-launcher-1.jar" "$build/lib/"

rm -rf "$target"
mkdir -p "$target"
cp -r "$build/lib" "$target/"
install -m 755 nextflow "$target/nextflow"
echo "$recipe" > "$target/recipe"

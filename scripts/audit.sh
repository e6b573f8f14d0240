#!/bin/sh
# Looks up known weaknesses of everything that lock/ names, and writes its bill of materials, build/sbom.json (CycloneDX).
#
# Exits with 1 where a weakness is known. Where the advisory service cannot be reached it says so and checks the rest.
set -eu
cd "$(dirname "$0")/.."

. scripts/tools.sh
tool pip-audit pip-audit==2.10.1
tool cyclonedx-py cyclonedx-bom==7.5.0

cat lock/server.txt lock/torch.txt >build/all.lock
"$tools/bin/cyclonedx-py" requirements --output-reproducible --pyproject pyproject.toml build/all.lock -o build/sbom.json
echo "build/sbom.json: $(grep -c '"purl"' build/sbom.json) components"

code=0
"$tools/bin/pip-audit" --progress-spinner off --disable-pip --require-hashes -r build/all.lock >build/audit.txt 2>&1 || code=$?
unknown=$(grep -c 'could not be audited' build/audit.txt || true)
if [ "$unknown" = "$(grep -c == build/all.lock)" ]; then
    echo "SKIPPED: the advisory service knows none of the $unknown packages: this is a mirror without advisories"
    exit 0
fi
if [ $code != 0 ] && grep -qE 'ServiceError|ConnectionError|Could not connect|Max retries|timed out' build/audit.txt; then
    echo "SKIPPED: the advisory service cannot be reached: $(tail -n 1 build/audit.txt)"
    exit 0
fi
cat build/audit.txt
exit $code

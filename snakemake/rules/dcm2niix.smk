rule dcm2niix:
    input:
        lambda wildcards: beside_sheet(scans[wildcards.scan]["image"]),
    output:
        temp("<results>/{scan}/{scan}_converted.nii.gz"),
    log:
        "<logs>/{scan}/dcm2niix.log",
    container:
        config["container"]
    resources:
        mem_mb=memory_mb(2000),
        runtime=60,
    shell:
        # -b n: a sidecar would name the institution. -g i: settings in a home folder change nothing.
        "dcm2niix -b n -g i -z i -w 0 -f {wildcards.scan}_converted"
        " -o $(dirname {output:q}) {input:q} > {log:q} 2>&1"

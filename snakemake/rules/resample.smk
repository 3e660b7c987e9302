rule resample:
    input:
        scan_as_given,
    output:
        image="<results>/{scan}/{scan}_resampled.nii.gz",
        report="<results>/{scan}/{scan}_resampled.json",
    log:
        "<logs>/{scan}/resample.log",
    container:
        config["container"]
    threads: 2
    resources:
        mem_mb=memory_mb(2000),
        runtime=60,
    params:
        spacing=config["spacing"],
    shell:
        "voxmask-resample --input {input:q} --spacing {params.spacing} --output {output.image:q}"
        " --report {output.report:q} --threads {threads} 2> {log:q}"

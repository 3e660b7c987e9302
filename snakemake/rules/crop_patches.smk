rule crop_patches:
    input:
        image=scan_image,
        foreground="<results>/{scan}/{scan}_foreground.nii.gz",
        anonymization_area="<results>/{scan}/{scan}_anonymization_area.nii.gz",
    output:
        patches=directory("<results>/{scan}/{scan}_patches"),
        report="<results>/{scan}/{scan}_patches.json",
    log:
        "<logs>/{scan}/crop_patches.log",
    container:
        config["container"]
    threads: 2
    resources:
        mem_mb=memory_mb(2000),
        runtime=60,
    params:
        extra=config["extra"]["crop_patches"],
    shell:
        "voxmask-crop-patches --input {input.image:q} --foreground {input.foreground:q}"
        " --anonymization-area {input.anonymization_area:q} --output {output.patches:q}"
        " --report {output.report:q} --threads {threads} {params.extra} 2> {log:q}"

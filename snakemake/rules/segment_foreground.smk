rule segment_foreground:
    input:
        image=scan_image,
    output:
        mask="<results>/{scan}/{scan}_foreground.nii.gz",
        picture=report(
            "<results>/{scan}/{scan}_foreground.png",
            caption="../report/foreground.rst",
            category="Foreground",
            labels={"scan": "{scan}"},
        ),
        report="<results>/{scan}/{scan}_foreground.json",
    log:
        "<logs>/{scan}/segment_foreground.log",
    retries: 2
    container:
        network_container
    threads: 2
    resources:
        mem_mb=memory_mb(4000),
        runtime=60,
        gpu=config["gpu"],
    params:
        modality=scan_modality,
        device=device,
        extra=config["extra"]["segment_foreground"],
    shell:
        "voxmask-segment-foreground --input {input.image:q} --modality {params.modality}"
        " --output {output.mask:q} --picture {output.picture:q} --report {output.report:q}"
        " --threads {threads} --device {params.device} {params.extra} 2> {log:q}"

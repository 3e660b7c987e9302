rule segment_anonymization_area:
    input:
        image=scan_image,
        foreground="<results>/{scan}/{scan}_foreground.nii.gz",
    output:
        mask="<results>/{scan}/{scan}_anonymization_area.nii.gz",
        picture=report(
            "<results>/{scan}/{scan}_anonymization_area.png",
            caption="../report/anonymization_area.rst",
            category="Anonymization area",
            labels={"scan": "{scan}"},
        ),
        report="<results>/{scan}/{scan}_anonymization_area.json",
    log:
        "<logs>/{scan}/segment_anonymization_area.log",
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
        extra=config["extra"]["segment_anonymization_area"],
    shell:
        "voxmask-segment-anonymization-area --input {input.image:q} --modality {params.modality}"
        " --foreground {input.foreground:q} --output {output.mask:q} --picture {output.picture:q}"
        " --report {output.report:q} --threads {threads} --device {params.device} {params.extra} 2> {log:q}"

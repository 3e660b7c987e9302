rule segment:
    input:
        image=scan_image,
        model=network_folder,
    output:
        labels="<results>/{scan}/{scan}_labels.nii.gz",
        picture=report(
            "<results>/{scan}/{scan}_labels.png",
            caption="../report/labels.rst",
            category="Labels",
            labels={"scan": "{scan}"},
        ),
        report="<results>/{scan}/{scan}_labels.json",
    log:
        "<logs>/{scan}/segment.log",
    retries: 2
    container:
        network_container
    threads: 2
    resources:
        mem_mb=memory_mb(8000),
        runtime=120,
        gpu=config["gpu"],
    params:
        device=device,
        extra=config["extra"]["segment"],
    shell:
        "voxmask-segment --input {input.image:q} --model {input.model:q}"
        " --output {output.labels:q} --picture {output.picture:q} --report {output.report:q}"
        " --threads {threads} --device {params.device} {params.extra} 2> {log:q}"
